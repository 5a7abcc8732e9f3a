// Prints the messages of a stream with r3labs/sse, which reconnects after an error.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/r3labs/sse/v2"
)

func main() {
	client := sse.NewClient(os.Args[1])
	for {
		// It returns without an error when the server ends the stream.
		err := client.SubscribeRaw(func(message *sse.Event) {
			line, err := json.Marshal(map[string]string{
				"event": string(message.Event),
				"id":    string(message.ID),
				"data":  string(message.Data),
			})
			if err != nil {
				panic(err)
			}
			fmt.Println(string(line))
		})
		fmt.Fprintln(os.Stderr, "the stream ended:", err)
		time.Sleep(500 * time.Millisecond)
	}
}
