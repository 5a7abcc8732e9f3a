// The franz-go client, as its documentation shows it. README.md in the parent folder describes the
// command line.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// How long a reader waits for the requested records.
	patience = 60 * time.Second
	// How long it continues after them, to find surplus records.
	quiet = time.Second
	// How long the broker may take to acknowledge a record.
	delivery = 30 * time.Second
	// The largest line on standard input.
	lineMaxBytes = 1 << 20
)

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

var errUsage = errors.New("usage: see tests/clients/README.md")

// in is a record on standard input.
type in struct {
	Key     *string           `json:"key"`
	Value   string            `json:"value"`
	Headers map[string]string `json:"headers"`
}

// out is a printed record; encoding/json writes bytes as base64.
type out struct {
	Partition int32             `json:"partition"`
	Offset    int64             `json:"offset"`
	Key       *string           `json:"key"`
	Value     []byte            `json:"value_base64"`
	Headers   map[string]string `json:"headers"`
}

func records(input io.Reader) ([]*kgo.Record, error) {
	var all []*kgo.Record
	lines := bufio.NewScanner(input)
	lines.Buffer(nil, lineMaxBytes)
	for lines.Scan() {
		var line in
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, err
		}
		record := &kgo.Record{Value: []byte(line.Value)}
		if line.Key != nil {
			record.Key = []byte(*line.Key)
		}
		for name, text := range line.Headers {
			header := kgo.RecordHeader{Key: name, Value: []byte(text)}
			record.Headers = append(record.Headers, header)
		}
		all = append(all, record)
	}
	return all, lines.Err()
}

func produce(bootstrap, topic, compression string, transaction []string) error {
	codec, known := codecs[compression]
	if !known {
		return errUsage
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(bootstrap, ",")...),
		kgo.DefaultProduceTopic(topic),
		kgo.ProducerBatchCompression(codec),
		kgo.RecordDeliveryTimeout(delivery),
	}
	if len(transaction) > 0 {
		id := kgo.TransactionalID(transaction[0])
		options = append(options, id, kgo.TransactionTimeout(delivery))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	all, err := records(os.Stdin)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if len(transaction) == 0 {
		return client.ProduceSync(ctx, all...).FirstErr()
	}
	if err := client.BeginTransaction(); err != nil {
		return err
	}
	if err := client.ProduceSync(ctx, all...).FirstErr(); err != nil {
		return errors.Join(err, client.EndTransaction(ctx, kgo.TryAbort))
	}
	end := kgo.TryCommit
	if len(transaction) == 2 && transaction[1] == "abort" {
		end = kgo.TryAbort
	}
	return client.EndTransaction(ctx, end)
}

func show(to *json.Encoder, record *kgo.Record) error {
	shown := out{
		Partition: record.Partition,
		Offset:    record.Offset,
		Value:     record.Value,
		Headers:   map[string]string{},
	}
	if record.Key != nil {
		key := string(record.Key)
		shown.Key = &key
	}
	for _, header := range record.Headers {
		shown.Headers[header.Key] = string(header.Value)
	}
	return to.Encode(shown)
}

func consume(bootstrap, topic string, left int, isolation kgo.IsolationLevel) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(bootstrap, ",")...),
		kgo.ConsumerGroup("franz-go-"+rand.Text()),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(isolation),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	printed := bufio.NewWriter(os.Stdout)
	defer printed.Flush()
	to := json.NewEncoder(printed)
	deadline := time.Now().Add(patience)
	if left <= 0 {
		deadline = time.Now().Add(quiet)
	}
	for {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		fetches := client.PollFetches(ctx)
		cancel()
		if err := fetches.Err(); errors.Is(err, context.DeadlineExceeded) {
			return nil
		} else if err != nil {
			return err
		}
		for _, record := range fetches.Records() {
			if err := show(to, record); err != nil {
				return err
			}
			left--
		}
		if left <= 0 && !fetches.Empty() {
			deadline = time.Now().Add(quiet)
		}
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "compressions":
		for name := range codecs {
			fmt.Println(name)
		}
		return nil
	case len(args) >= 4 && len(args) <= 6 && args[0] == "produce":
		return produce(args[1], args[2], args[3], args[4:])
	case len(args) >= 4 && args[0] == "consume":
		count, err := strconv.Atoi(args[3])
		if err != nil {
			return errUsage
		}
		isolation := kgo.ReadCommitted()
		if len(args) == 5 && args[4] == "read_uncommitted" {
			isolation = kgo.ReadUncommitted()
		}
		return consume(args[1], args[2], count, isolation)
	default:
		return errUsage
	}
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		if errors.Is(err, errUsage) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}
