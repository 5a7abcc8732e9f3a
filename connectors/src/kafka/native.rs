//! Calls of librdkafka that its safe binding does not offer. The only file with `unsafe` code.
//!
//! It has eight uses. **Topic ids**, which become the epoch of positions. **Permissions of the
//! user** and **ACLs of a topic**, for `tidewire doctor`. **The offset of an end of partition** and
//! positions after control records, without which a restore does not know that it is complete.
//! **Events of a producer**, so that waiting for an acknowledgement is neither a busy loop nor a
//! sleep of up to 100 ms per transaction (measured: a commit cycle of 8 to 14 ms instead of 100).
//! **Adding brokers** to a client that lost all of them. **Ignoring a broker's leader hints**,
//! which librdkafka reads wrongly. **Ends of partitions**, asked for without waiting for the
//! answer.
//!
//! Rules: every object of a client keeps that client alive through an `Arc`; every callback is
//! removed, under librdkafka's own queue lock, before what it points to is dropped; every message
//! is copied and destroyed before a function returns; no pointer leaves this file. Reads use
//! librdkafka's partition-level consumer, which belongs to no group.

#![expect(unsafe_code, reason = "the foreign functions below have no safe binding")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka_sys as sys;
use tidewire_engine::port::Isolation;
use tidewire_engine::record::{Body, Millis, Offset, Partition, Record, Topic, TopicPartition};

use super::context::KafkaContext;
use super::partition_list::partition_number;
use super::read_retry::FailedRead;
use crate::notify::Notifier;

/// A consumer, shared by the objects that are made from it.
pub(super) type SharedConsumer = Arc<BaseConsumer<KafkaContext>>;

/// What was fetched from a partition.
pub(super) enum FetchResult {
    Record(Record),
    /// The end of the partition; the offset is the next to read.
    End(Offset),
    /// Reading stopped; a new consumer has to be started.
    Failed(FailedRead),
}

/// Reads one partition from its own queue. A client must not have two of one partition: both would
/// read from the same queue.
pub(super) struct PartitionConsumer {
    topic: *mut sys::rd_kafka_topic_t,
    name: CString,
    partition: i32,
    queue: *mut sys::rd_kafka_queue_t,
    batch: Vec<*mut sys::rd_kafka_message_t>,
    /// What the queue's callback points to; kept until the callback is removed.
    _notifier: Arc<Notifier>,
    client: SharedConsumer,
}

// SAFETY: librdkafka's objects may be used from any thread; `batch` is empty between calls.
unsafe impl Send for PartitionConsumer {}

impl PartitionConsumer {
    /// Starts to read at an offset; `notifier` is signalled when the queue stops being empty.
    pub(super) fn start(
        client: &SharedConsumer,
        at: &TopicPartition,
        from: Offset,
        notifier: &Arc<Notifier>,
    ) -> Result<Self, RDKafkaErrorCode> {
        let partition = partition_number(at);
        let name = CString::new(at.topic.as_str()).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        let handle = client.client().native_ptr();
        // SAFETY: the client lives as long as `Self`; both results are checked and owned by it.
        let (topic, queue) = unsafe {
            let topic = sys::rd_kafka_topic_new(handle, name.as_ptr(), ptr::null_mut());
            if topic.is_null() {
                return Err(last_error());
            }
            let queue = sys::rd_kafka_queue_get_partition(handle, name.as_ptr(), partition);
            if queue.is_null() {
                sys::rd_kafka_topic_destroy(topic);
                return Err(RDKafkaErrorCode::UnknownPartition);
            }
            let opaque = Arc::as_ptr(notifier) as *mut c_void;
            sys::rd_kafka_queue_cb_event_enable(queue, Some(notify_callback), opaque);
            (topic, queue)
        };
        let (batch, client) = (Vec::new(), Arc::clone(client));
        let consumer =
            Self { topic, name, partition, queue, batch, _notifier: Arc::clone(notifier), client };
        consumer.begin(from)?;
        Ok(consumer)
    }

    fn begin(&self, from: Offset) -> Result<(), RDKafkaErrorCode> {
        let offset = i64::try_from(from.0).map_err(|_| RDKafkaErrorCode::InvalidArgument)?;
        // SAFETY: the topic handle is ours and alive.
        match unsafe { sys::rd_kafka_consume_start(self.topic, self.partition, offset) } {
            0 => Ok(()),
            _ => Err(last_error()),
        }
    }

    /// Stops to read. Another consumer of the partition reads on.
    fn stop(&self) {
        // SAFETY: the topic handle is ours and alive. The call fails only if nothing was started.
        // Afterwards librdkafka discards older messages.
        unsafe { sys::rd_kafka_consume_stop(self.topic, self.partition) };
    }

    /// Emits what is ready, at most `max`, without waiting. Returns whether that was all.
    pub(super) fn take(&mut self, max: usize, mut emit: impl FnMut(FetchResult)) -> bool {
        self.batch.clear();
        self.batch.reserve(max);
        // SAFETY: the batch has capacity for `max` pointers, and librdkafka returns how many it
        // filled. Each message is read while it is alive and destroyed once.
        unsafe {
            let taken = sys::rd_kafka_consume_batch(
                self.topic,
                self.partition,
                0,
                self.batch.as_mut_ptr(),
                max,
            );
            let Ok(taken) = usize::try_from(taken) else {
                let (code, text) = (last_error(), String::new());
                emit(FetchResult::Failed(FailedRead { code, text }));
                return true;
            };
            self.batch.set_len(taken);
            for message in self.batch.drain(..) {
                emit(fetch_result(message));
                sys::rd_kafka_message_destroy(message);
            }
            taken < max
        }
    }

    /// Whether the queue is not empty.
    pub(super) fn is_ready(&self) -> bool {
        // SAFETY: the queue is ours and alive.
        unsafe { sys::rd_kafka_queue_length(self.queue) > 0 }
    }

    /// The end of the partition, open transactions included, as of the last fetch.
    pub(super) fn high_watermark(&self) -> Option<Offset> {
        let (mut low, mut high) = (0, 0);
        // SAFETY: the client and the name are alive; both numbers are ours.
        let known = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.client.client().native_ptr(),
                self.name.as_ptr(),
                self.partition,
                &raw mut low,
                &raw mut high,
            )
        };
        let known = known == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        u64::try_from(high).ok().filter(|_| known).map(Offset)
    }

    /// The offset after the last record *or control record* that was taken; `None` before the
    /// first. Until something of this start is taken it may be that of an earlier start.
    pub(super) fn position(&self) -> Option<Offset> {
        let name = self.name.to_str().ok()?;
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(name, self.partition);
        let handle = self.client.client().native_ptr();
        // SAFETY: client and list are alive.
        let outcome = unsafe { sys::rd_kafka_position(handle, list.ptr()) };
        if outcome != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let raw = list.elements().first().and_then(|element| element.offset().to_raw());
        raw.and_then(|raw| u64::try_from(raw).ok()).map(Offset)
    }
}

impl Drop for PartitionConsumer {
    fn drop(&mut self) {
        self.stop();
        // SAFETY: removing the callback waits for a running one; both objects are ours, and the
        // client is still alive.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue);
            sys::rd_kafka_topic_destroy(self.topic);
        }
    }
}

/// A producer, and a notifier that is signalled when it has events.
pub(super) struct NotifyingProducer {
    queue: *mut sys::rd_kafka_queue_t,
    notifier: Arc<Notifier>,
    producer: Arc<BaseProducer<KafkaContext>>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for NotifyingProducer {}

impl NotifyingProducer {
    /// Enables notifications of a producer's events.
    pub(super) fn new(producer: BaseProducer<KafkaContext>) -> Self {
        let (producer, notifier) = (Arc::new(producer), Arc::new(Notifier::default()));
        // SAFETY: producer and notifier live as long as `Self`, whose drop removes the callback. A
        // client always has a main queue.
        let queue = unsafe {
            let queue = sys::rd_kafka_queue_get_main(producer.client().native_ptr());
            let opaque = Arc::as_ptr(&notifier) as *mut c_void;
            sys::rd_kafka_queue_cb_event_enable(queue, Some(notify_callback), opaque);
            queue
        };
        Self { queue, notifier, producer }
    }

    /// The producer.
    pub(super) fn producer(&self) -> &BaseProducer<KafkaContext> {
        &self.producer
    }

    /// Serves its events; delivery reports reach the context.
    pub(super) fn serve(&self) {
        while self.has_events() {
            self.producer.poll(Duration::ZERO);
        }
    }

    /// Waits until it has events, at most this long.
    pub(super) fn wait(&self, at_most: Duration) {
        self.notifier.wait(at_most, || self.has_events());
    }

    fn has_events(&self) -> bool {
        // SAFETY: the queue is ours and alive.
        unsafe { sys::rd_kafka_queue_length(self.queue) > 0 }
    }
}

impl Drop for NotifyingProducer {
    fn drop(&mut self) {
        // SAFETY: as for `PartitionConsumer`.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// The end of a partition, or the broker's error.
pub(super) struct FoundEnd {
    pub(super) at: TopicPartition,
    pub(super) end: Result<Offset, RDKafkaErrorCode>,
}

/// A request for the ends of partitions (`ListOffsets`) that nobody waits for.
pub(super) struct PendingOffsets {
    queue: *mut sys::rd_kafka_queue_t,
    /// The queue belongs to this client.
    _client: SharedConsumer,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for PendingOffsets {}

impl PendingOffsets {
    /// Sends the request; its answer, a timeout after `limit` included, comes to its queue.
    pub(super) fn request(
        client: &SharedConsumer,
        of: &[TopicPartition],
        isolation: Isolation,
        limit: Duration,
    ) -> Result<Self, RDKafkaErrorCode> {
        use sys::rd_kafka_IsolationLevel_t::{
            RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED, RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        };
        let isolation = match isolation {
            Isolation::Committed => RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
            Isolation::Uncommitted => RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        };
        let mut list = TopicPartitionList::with_capacity(of.len());
        for at in of {
            let (topic, partition) = (at.topic.as_str(), partition_number(at));
            let latest = list.add_partition_offset(topic, partition, KafkaOffset::End);
            latest.map_err(|_| RDKafkaErrorCode::InvalidArgument)?;
        }
        let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        let handle = client.client().native_ptr();
        // SAFETY: client, list and options are alive; the call copies the list and the options,
        // which are destroyed here. The queue is destroyed with `Self`.
        let queue = unsafe {
            let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
            let options = sys::rd_kafka_AdminOptions_new(handle, operation);
            sys::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
            sys::rd_kafka_AdminOptions_set_isolation_level(options, isolation);
            let queue = sys::rd_kafka_queue_new(handle);
            sys::rd_kafka_ListOffsets(handle, list.ptr(), options, queue);
            sys::rd_kafka_AdminOptions_destroy(options);
            queue
        };
        Ok(Self { queue, _client: Arc::clone(client) })
    }

    /// The answer; `None` while there is none. Not called again after the answer.
    pub(super) fn poll(&mut self) -> Option<Result<Vec<FoundEnd>, RDKafkaErrorCode>> {
        // SAFETY: the queue is ours and alive; the event is read while it is alive and destroyed.
        unsafe {
            let event = sys::rd_kafka_queue_poll(self.queue, 0);
            if event.is_null() {
                return None;
            }
            let answer = match sys::rd_kafka_event_error(event) {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(found_ends(event)),
                code => Err(code.into()),
            };
            sys::rd_kafka_event_destroy(event);
            Some(answer)
        }
    }
}

impl Drop for PendingOffsets {
    fn drop(&mut self) {
        // SAFETY: the queue is ours, and the client is still alive. A request keeps its own
        // reference to the queue until it is answered.
        unsafe { sys::rd_kafka_queue_destroy(self.queue) };
    }
}

/// Copies the ends out of the answer to a `ListOffsets` request.
///
/// # Safety
/// The event must be such an answer, and alive.
unsafe fn found_ends(event: *mut sys::rd_kafka_event_t) -> Vec<FoundEnd> {
    let mut count = 0;
    // SAFETY: the caller's promise; the event owns all that is read.
    unsafe {
        let result = sys::rd_kafka_event_ListOffsets_result(event);
        let infos = sys::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
        let one = |n: usize| {
            let found = &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(n));
            let partition = Partition(u32::try_from(found.partition).unwrap_or(u32::MAX));
            let end = found_end(found.err, found.offset);
            FoundEnd { at: TopicPartition::new(&Topic::new(text(found.topic)), partition), end }
        };
        (0..count).map(one).collect()
    }
}

/// The end in one result. If the request to a broker failed, librdkafka leaves the offset of its
/// partitions negative, without an error.
fn found_end(error: RDKafkaRespErr, offset: i64) -> Result<Offset, RDKafkaErrorCode> {
    match error {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {
            u64::try_from(offset).map(Offset).map_err(|_| RDKafkaErrorCode::OperationTimedOut)
        }
        code => Err(code.into()),
    }
}

/// Whether a consumer has events. Its own `poll` returns the same for some events as for none.
pub(super) fn has_events<C: ConsumerContext>(client: &BaseConsumer<C>) -> bool {
    // SAFETY: the client is alive and always has a main queue; the handle is destroyed.
    unsafe {
        let queue = sys::rd_kafka_queue_get_main(client.client().native_ptr());
        let events = sys::rd_kafka_queue_length(queue);
        sys::rd_kafka_queue_destroy(queue);
        events > 0
    }
}

/// Adds addresses of brokers to those a client knows.
pub(super) fn add_brokers(client: &rdkafka::client::Client<KafkaContext>, addresses: &str) {
    let Ok(addresses) = CString::new(addresses) else { return };
    // SAFETY: the client is alive; the text is copied.
    unsafe { sys::rd_kafka_brokers_add(client.native_ptr(), addresses.as_ptr()) };
}

/// Replaces librdkafka's function of this name (see `build.rs`), which copies the new leaders named
/// in an answer (KIP-951) into the client's cache. For a partition without a leader the hint in a
/// fetch answer points to uninitialised memory: the process crashes, or uses wrong data. This is
/// librdkafka's issue 5280, in every version since 2.6. The error with the hint makes the client
/// ask for the leaders anyway, as it did before hints existed.
///
/// The pointers are not used; their owners keep them.
#[unsafe(no_mangle)]
extern "C" fn __wrap_rd_kafka_metadata_update_op(_: *mut sys::rd_kafka_t, _: *mut c_void) -> c_int {
    // RD_KAFKA_OP_RES_HANDLED of librdkafka.
    1
}

/// A topic's id of 128 bits, or the broker's error.
pub(super) type TopicId = Result<u128, RDKafkaErrorCode>;

/// The operations that are allowed on a resource: one bit per ACL operation, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights(pub(super) u32);

/// The answer for each resource, by its name.
type PerName<T> = Vec<(String, Result<T, RDKafkaErrorCode>)>;

/// The ids of topics, in any order (`DescribeTopics`, KIP-516).
pub(super) fn topic_ids(
    client: &BaseConsumer<KafkaContext>,
    names: &[&str],
    limit: Duration,
) -> Result<Vec<(String, TopicId)>, RDKafkaErrorCode> {
    let read = |topic| {
        // SAFETY: `describe_topics` passes a living topic, which owns its id.
        unsafe {
            let id = sys::rd_kafka_TopicDescription_topic_id(topic);
            let most = sys::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
            let least = sys::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
            u128::from(most) << 64 | u128::from(least)
        }
    };
    describe_topics(client, &TopicQuery { names, limit, with_rights: 0 }, read)
}

/// The operations this user is allowed on topics, in any order (KIP-430).
pub(super) fn topic_rights<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    names: &[&str],
    limit: Duration,
) -> Result<PerName<Rights>, RDKafkaErrorCode> {
    describe_topics(client, &TopicQuery { names, limit, with_rights: 1 }, |topic| {
        let mut count = 0;
        // SAFETY: `describe_topics` passes a living topic, which owns the list.
        unsafe {
            let all = sys::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count);
            rights(all, count)
        }
    })
}

/// A `DescribeTopics` request.
struct TopicQuery<'a> {
    names: &'a [&'a str],
    limit: Duration,
    /// 1: the answer includes this user's rights; 0: it does not.
    with_rights: c_int,
}

/// Describes topics; `read` is called with each topic that exists, while it is alive.
fn describe_topics<C: ConsumerContext, T>(
    client: &BaseConsumer<C>,
    query: &TopicQuery<'_>,
    read: impl Fn(*const sys::rd_kafka_TopicDescription_t) -> T,
) -> Result<PerName<T>, RDKafkaErrorCode> {
    let names = CStringList::of(query.names);
    let handle = client.client().native_ptr();
    let ask = |options, queue| {
        // SAFETY: names, options and queue are alive; the collection is copied by the call.
        unsafe {
            sys::rd_kafka_AdminOptions_set_include_authorized_operations(
                options,
                query.with_rights,
            );
            let mut pointers = names.pointers();
            let topics =
                sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            sys::rd_kafka_DescribeTopics(handle, topics, options, queue);
            sys::rd_kafka_TopicCollection_destroy(topics);
        }
    };
    let each = |event| {
        // SAFETY: the event is the answer to this question, is alive and owns all that is read.
        unsafe {
            let result = sys::rd_kafka_event_DescribeTopics_result(event);
            let mut count = 0;
            let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            let one = |n: usize| {
                let topic = *topics.add(n);
                let error = sys::rd_kafka_TopicDescription_error(topic);
                let name = sys::rd_kafka_TopicDescription_name(topic);
                (text(name), check_error(error).map(|()| read(topic)))
            };
            (0..count).map(one).collect()
        }
    };
    let operation = AdminOperation {
        handle,
        kind: sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        limit: query.limit,
    };
    // SAFETY: the client is alive, and `ask` starts this operation.
    unsafe { operation.run(ask, each) }
}

/// The operations this user is allowed on groups, in any order. A group need not exist for that.
pub(super) fn group_rights<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    names: &[&str],
    limit: Duration,
) -> Result<PerName<Rights>, RDKafkaErrorCode> {
    let names = CStringList::of(names);
    let handle = client.client().native_ptr();
    let ask = |options, queue| {
        let mut pointers = names.pointers();
        let (groups, count) = (pointers.as_mut_ptr(), pointers.len());
        // SAFETY: options and queue are alive; the names are copied by the call.
        unsafe {
            sys::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
            sys::rd_kafka_DescribeConsumerGroups(handle, groups, count, options, queue);
        }
    };
    let each = |event| {
        // SAFETY: the event is the answer to this question, is alive and owns all that is read.
        unsafe {
            let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event);
            let (mut count, mut allowed) = (0, 0);
            let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
            let one = |n: usize| {
                let group = *groups.add(n);
                let all = sys::rd_kafka_ConsumerGroupDescription_authorized_operations(
                    group,
                    &raw mut allowed,
                );
                let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
                let name = sys::rd_kafka_ConsumerGroupDescription_group_id(group);
                (text(name), check_error(error).map(|()| rights(all, allowed)))
            };
            (0..count).map(one).collect()
        }
    };
    let operation = AdminOperation {
        handle,
        kind: sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS,
        limit,
    };
    // SAFETY: the client is alive, and `ask` starts this operation.
    unsafe { operation.run(ask, each) }
}

/// An entry of the access control list (ACL) that covers a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicAcl {
    pub(super) principal: String,
    /// The client's host; `*` for every host.
    pub(super) host: String,
    /// By Kafka's number.
    pub(super) operation: u32,
    /// Whether it allows the operation; otherwise it denies it.
    pub(super) allows: bool,
}

/// The ACLs that cover a topic: those of its name, of prefixes of it, and of all topics. librdkafka
/// drops the error of a broker that does not answer this, so an empty list may also mean that the
/// user is not allowed to ask, or that there is no authorizer.
pub(super) fn topic_acls<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    topic: &str,
    limit: Duration,
) -> Result<Vec<TopicAcl>, RDKafkaErrorCode> {
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
    let handle = client.client().native_ptr();
    // SAFETY: the name is copied; the filter is destroyed below. Only an invalid filter is null.
    let filter = unsafe {
        sys::rd_kafka_AclBindingFilter_new(
            sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC,
            name.as_ptr(),
            sys::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_MATCH,
            ptr::null(),
            ptr::null(),
            sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_ANY,
            sys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ANY,
            ptr::null_mut(),
            0,
        )
    };
    if filter.is_null() {
        return Err(RDKafkaErrorCode::InvalidArgument);
    }
    // SAFETY: filter, options and queue are alive; the call copies the filter.
    let ask = |options: *mut sys::rd_kafka_AdminOptions_t, queue| unsafe {
        sys::rd_kafka_DescribeAcls(handle, filter, options, queue);
    };
    let read = |event| {
        let mut count = 0;
        // SAFETY: the event is the answer to this question, is alive and owns all that is read.
        unsafe {
            let result = sys::rd_kafka_event_DescribeAcls_result(event);
            let acls = sys::rd_kafka_DescribeAcls_result_acls(result, &raw mut count);
            (0..count).map(|n| topic_acl(*acls.add(n))).collect()
        }
    };
    let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBEACLS;
    // SAFETY: the client is alive, and `ask` starts this operation.
    let found = unsafe { AdminOperation { handle, kind, limit }.run(ask, read) };
    // SAFETY: it was created above and is used no more.
    unsafe { sys::rd_kafka_AclBinding_destroy(filter) };
    found
}

/// Copies an ACL.
///
/// # Safety
/// It must be alive.
unsafe fn topic_acl(acl: *const sys::rd_kafka_AclBinding_t) -> TopicAcl {
    // SAFETY: the caller's promise.
    unsafe {
        let permission = sys::rd_kafka_AclBinding_permission_type(acl);
        let allow = sys::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW;
        TopicAcl {
            principal: text(sys::rd_kafka_AclBinding_principal(acl)),
            host: text(sys::rd_kafka_AclBinding_host(acl)),
            operation: sys::rd_kafka_AclBinding_operation(acl) as u32,
            allows: permission == allow,
        }
    }
}

/// The operations this user is allowed on the cluster (KIP-430).
pub(super) fn cluster_rights<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    limit: Duration,
) -> Result<Rights, RDKafkaErrorCode> {
    let handle = client.client().native_ptr();
    let ask = |options, queue| {
        // SAFETY: options and queue are alive.
        unsafe {
            sys::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
            sys::rd_kafka_DescribeCluster(handle, options, queue);
        }
    };
    let read = |event| {
        let mut count = 0;
        // SAFETY: the event is the answer to this question, is alive and owns the list.
        unsafe {
            let result = sys::rd_kafka_event_DescribeCluster_result(event);
            let all =
                sys::rd_kafka_DescribeCluster_result_authorized_operations(result, &raw mut count);
            rights(all, count)
        }
    };
    let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECLUSTER;
    // SAFETY: the client is alive, and `ask` starts this operation.
    unsafe { AdminOperation { handle, kind, limit }.run(ask, read) }
}

/// Names as C strings; a name with a zero byte is left out.
struct CStringList(Vec<CString>);

impl CStringList {
    fn of(names: &[&str]) -> Self {
        Self(names.iter().filter_map(|name| CString::new(*name).ok()).collect())
    }

    fn pointers(&self) -> Vec<*const c_char> {
        self.0.iter().map(|name| name.as_ptr()).collect()
    }
}

/// An operation of librdkafka's admin API.
struct AdminOperation {
    handle: *mut sys::rd_kafka_t,
    kind: sys::rd_kafka_admin_op_t,
    limit: Duration,
}

impl AdminOperation {
    /// Runs the operation: `ask` starts it, `read` is called with the event that answers.
    ///
    /// # Safety
    /// The handle must be that of a living client, and `ask` must start an operation of this kind.
    unsafe fn run<T>(
        self,
        ask: impl FnOnce(*mut sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
        read: impl FnOnce(*mut sys::rd_kafka_event_t) -> T,
    ) -> Result<T, RDKafkaErrorCode> {
        let millis = i32::try_from(self.limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: each object is created, used and destroyed here, the event after it was read.
        unsafe {
            let options = sys::rd_kafka_AdminOptions_new(self.handle, self.kind);
            sys::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
            let queue = sys::rd_kafka_queue_new(self.handle);
            ask(options, queue);
            let event = sys::rd_kafka_queue_poll(queue, millis);
            let answer = if event.is_null() {
                Err(RDKafkaErrorCode::OperationTimedOut)
            } else {
                let answer = match sys::rd_kafka_event_error(event) {
                    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(read(event)),
                    code => Err(code.into()),
                };
                sys::rd_kafka_event_destroy(event);
                answer
            };
            sys::rd_kafka_queue_destroy(queue);
            sys::rd_kafka_AdminOptions_destroy(options);
            answer
        }
    }
}

/// Turns librdkafka's error into a result; a null pointer is success.
///
/// # Safety
/// The error, if there is one, must be alive.
unsafe fn check_error(error: *const sys::rd_kafka_error_t) -> Result<(), RDKafkaErrorCode> {
    // SAFETY: the caller's promise; a null pointer has the code of success.
    match unsafe { sys::rd_kafka_error_code(error) } {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(code.into()),
    }
}

/// Copies a C string of librdkafka.
///
/// # Safety
/// It must be alive and end with a zero byte.
unsafe fn text(at: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(at) }.to_string_lossy().into_owned()
}

/// A list of operations as a set of bits. They are read as numbers, since a newer library may have
/// operations that the type does not have.
///
/// # Safety
/// There must be `count` of them that are alive.
unsafe fn rights(all: *const sys::rd_kafka_AclOperation_t, count: usize) -> Rights {
    // SAFETY: the caller's promise; an operation is a number of 32 bits.
    let number = |n: usize| unsafe { all.cast::<u32>().add(n).read() };
    let bits = (0..count).map(number).filter(|bit| *bit < u32::BITS);
    Rights(bits.fold(0, |set, bit| set | 1 << bit))
}

/// Called by librdkafka when a queue stops being empty.
unsafe extern "C" fn notify_callback(_: *mut sys::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: it points to the notifier of the object that enabled the callback.
    let notifier = unsafe { &*(opaque as *const Notifier) };
    notifier.signal();
}

/// librdkafka's last error on this thread.
fn last_error() -> RDKafkaErrorCode {
    // SAFETY: reads a thread-local of librdkafka.
    unsafe { sys::rd_kafka_last_error() }.into()
}

/// Copies a message out.
///
/// # Safety
/// The message must be alive.
unsafe fn fetch_result(message: *mut sys::rd_kafka_message_t) -> FetchResult {
    // SAFETY: the caller keeps the message alive, and with it everything it points to.
    unsafe {
        let fields = &*message;
        let offset = Offset(u64::try_from(fields.offset).unwrap_or(0));
        match fields.err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => return FetchResult::End(offset),
            error => {
                let text = bytes(fields.payload, fields.len).unwrap_or_default();
                let text = String::from_utf8_lossy(text).into_owned();
                return FetchResult::Failed(FailedRead { code: error.into(), text });
            }
        }
        let time = sys::rd_kafka_message_timestamp(message, ptr::null_mut());
        let key = bytes(fields.key, fields.key_len);
        let value = bytes(fields.payload, fields.len);
        let mut headers = ptr::null_mut();
        let has = sys::rd_kafka_message_headers(message, &raw mut headers);
        let body = match has {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => with_headers(key, value, headers),
            _ => Body::new(key, value, &[]),
        };
        FetchResult::Record(Record { offset, timestamp: Millis(time.max(0)), body })
    }
}

/// A body with its headers.
///
/// # Safety
/// The headers must be alive.
unsafe fn with_headers(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: *mut sys::rd_kafka_headers_t,
) -> Body {
    let mut all = Vec::new();
    loop {
        let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the caller keeps the headers alive; name and value belong to them.
        let next = unsafe {
            sys::rd_kafka_header_get_all(
                headers,
                all.len(),
                &raw mut name,
                &raw mut value,
                &raw mut len,
            )
        };
        if next != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            break;
        }
        // SAFETY: as above; a name ends with a zero byte.
        let header = unsafe {
            (CStr::from_ptr(name).to_string_lossy(), bytes(value, len).unwrap_or_default())
        };
        all.push(header);
    }
    let all: Vec<(&str, &[u8])> = all.iter().map(|(name, value)| (&**name, *value)).collect();
    Body::new(key, value, &all)
}

/// The bytes at a pointer; `None` for a null pointer.
///
/// # Safety
/// There must be `len` bytes that live as long as the caller uses them.
unsafe fn bytes<'a>(at: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!at.is_null()).then(|| unsafe { slice::from_raw_parts(at.cast::<u8>(), len) })
}

#[cfg(test)]
mod tests;
