//! The mix: how often each event type comes, and what its `data` holds, as a table.
//!
//! Three groups, 60 % reactions, 20 % posts, 20 % the rest, which is what a social stream looks
//! like and what the benchmarks are stated in; within a group the weights say the shares. A row is
//! an entry of data: adding a type to the traffic is adding a row.

use Make::{Count, Id, Name, OneOf, Part, Percent, Post, PostAuthor, Text, Topic, Topics, User};

/// How a field's value is made.
#[derive(Clone, Copy, Debug)]
pub enum Make {
    /// The post this event is about.
    Post,
    /// Whoever wrote that post.
    PostAuthor,
    /// The user who acts, the same one within an event.
    User,
    /// The name of the acting user.
    Name,
    /// Another user.
    Other,
    /// A short sentence.
    Text,
    /// A topic.
    Topic,
    /// A list of one or two topics.
    Topics,
    /// This word with one of so many numbers.
    Id(&'static str, u32),
    /// This word with the event's own number, so that it never comes twice.
    Fresh(&'static str),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A whole number below this.
    Count(u32),
    /// A number from -1 to 1.
    Part,
    /// A number from 0 to 100.
    Percent,
    /// True or false.
    Either,
}

/// An event type as it is generated.
#[derive(Debug)]
pub struct Row {
    /// Canonical type.
    pub event_type: &'static str,
    /// Its share within its group.
    pub weight: u32,
    /// The fields of `data`.
    pub fields: &'static [(&'static str, Make)],
}

const fn row(
    event_type: &'static str,
    weight: u32,
    fields: &'static [(&'static str, Make)],
) -> Row {
    Row { event_type, weight, fields }
}

/// Types of one kind and their share of all events.
#[derive(Debug)]
pub struct Group {
    /// Of a hundred events, how many are of this group.
    pub percent: u32,
    /// The types.
    pub rows: &'static [Row],
}

/// The whole mix; the shares add up to a hundred.
pub const MIX: &[Group] = &[
    Group { percent: 60, rows: REACTIONS },
    Group { percent: 20, rows: POSTS },
    Group { percent: 20, rows: REST },
];

const ACT: &[(&str, Make)] =
    &[("post_id", Post), ("user_id", User), ("user_name", Name), ("author_id", PostAuthor)];
const REACT: &[(&str, Make)] = &[
    ("post_id", Post),
    ("user_id", User),
    ("author_id", PostAuthor),
    ("reaction_type", OneOf(&["heart", "laugh", "wow", "wave", "fire"])),
];
const MESSAGE: &[(&str, Make)] = &[
    ("message_id", Make::Fresh("m")),
    ("conversation_id", Id("c", 200)),
    ("sender_id", User),
    ("sender_name", Name),
    ("recipient_id", Make::Other),
    ("text", Text),
];
const EMAIL: &[(&str, Make)] = &[
    ("email_id", Id("mail", 5_000)),
    ("campaign_id", Id("camp", 8)),
    ("lead_id", Id("lead", 900)),
];

const REACTIONS: &[Row] = &[
    row("post.liked", 56, ACT),
    row("post.reacted", 14, REACT),
    row("post.reposted", 10, ACT),
    row("reaction.live", 8, REACT),
    row(
        "post.replied",
        5,
        &[
            ("post_id", Post),
            ("user_id", User),
            ("author_id", PostAuthor),
            ("reply_id", Make::Fresh("p")),
            ("text", Text),
        ],
    ),
    row("post.unliked", 4, ACT),
    row(
        "post.quoted",
        2,
        &[
            ("post_id", Post),
            ("user_id", User),
            ("author_id", PostAuthor),
            ("quote_id", Make::Fresh("p")),
            ("text", Text),
        ],
    ),
    row("post.unreposted", 1, ACT),
];

const POSTS: &[Row] = &[
    row(
        "post.created",
        84,
        &[
            ("post_id", Make::Fresh("p")),
            ("author_id", User),
            ("text", Text),
            ("lang", OneOf(&["en", "ja", "es", "de", "fr"])),
            ("topics", Topics),
            ("region", OneOf(&["eu", "us", "apac", "global"])),
        ],
    ),
    row(
        "post.published",
        6,
        &[
            ("post_id", Make::Fresh("p")),
            ("author_id", User),
            ("text", Text),
            ("platform", OneOf(&["x", "mastodon", "bluesky"])),
        ],
    ),
    row("post.updated", 5, &[("post_id", Post), ("author_id", PostAuthor), ("text", Text)]),
    row("post.deleted", 3, &[("post_id", Post), ("author_id", PostAuthor)]),
    row(
        "post.failed",
        2,
        &[
            ("post_id", Make::Fresh("p")),
            ("error", OneOf(&["rejected by the platform", "the link has expired"])),
            ("retryable", Make::Either),
        ],
    ),
];

const REST: &[Row] = &[
    row(
        "mention.created",
        12,
        &[
            ("author_id", User),
            ("text", Text),
            ("post_id", Post),
            ("mentioned_user_id", Make::Other),
            ("sentiment", Part),
        ],
    ),
    row("user.followed", 10, &[("user_id", User), ("target_id", Make::Other), ("user_name", Name)]),
    row("user.unfollowed", 2, &[("user_id", User), ("target_id", Make::Other)]),
    row("message.received", 9, MESSAGE),
    row("message.sent", 6, MESSAGE),
    row("message.read", 4, &[("conversation_id", Id("c", 200)), ("reader_id", User)]),
    row(
        "chat.message",
        7,
        &[("thread_id", Id("t", 40)), ("user_id", User), ("user_name", Name), ("text", Text)],
    ),
    row("typing.start", 5, &[("scope", Id("t", 40)), ("user_id", User)]),
    row(
        "presence.changed",
        4,
        &[("user_id", User), ("status", OneOf(&["online", "away", "offline"]))],
    ),
    row(
        "notification.created",
        6,
        &[
            ("notification_id", Make::Fresh("n")),
            ("user_id", Make::Other),
            ("kind", OneOf(&["like", "reply", "follow", "mention"])),
            ("actor_id", User),
            ("actor_name", Name),
            ("post_id", Post),
        ],
    ),
    row("notification.read", 2, &[("user_id", User), ("notification_id", Id("n", 100_000))]),
    row(
        "news.published",
        2,
        &[("news_id", Make::Fresh("news")), ("title", Text), ("topics", Topics)],
    ),
    row("trend.reported", 3, &[("topic", Topic), ("post_count", Count(500))]),
    row(
        "metric.updated",
        3,
        &[
            ("metric", OneOf(&["followers", "posts_published", "messages_received"])),
            ("value", Count(10_000)),
        ],
    ),
    row("account.followers_changed", 2, &[("followers", Count(100_000)), ("change", Count(9))]),
    row("account.login", 1, &[("success", Make::Either)]),
    row(
        "account.rate_limited",
        1,
        &[("endpoint", OneOf(&["timeline", "search", "post"])), ("remaining", Count(5))],
    ),
    row(
        "account.health_alert",
        2,
        &[
            ("alert_type", OneOf(&["error_rate", "latency", "token_expiring"])),
            ("severity", OneOf(&["low", "medium", "high", "critical"])),
            ("message", Text),
        ],
    ),
    row(
        "account.detection_event",
        1,
        &[
            ("detection_type", OneOf(&["captcha", "challenge", "unusual_login"])),
            ("severity", OneOf(&["low", "medium", "high"])),
        ],
    ),
    row(
        "campaign.email_sent",
        3,
        &[
            ("campaign_id", Id("camp", 8)),
            ("email_id", Id("mail", 5_000)),
            ("sent", Count(5_000)),
            ("total", Count(5_000)),
        ],
    ),
    row("email.delivered", 3, EMAIL),
    row("email.opened", 3, EMAIL),
    row("email.clicked", 1, EMAIL),
    row(
        "scraper.progress",
        3,
        &[
            ("scraper_id", Id("s", 4)),
            ("current", Count(100)),
            ("total", Count(100)),
            ("source", OneOf(&["directory", "job_board"])),
        ],
    ),
    row(
        "ai.processing",
        1,
        &[("task_id", Id("task", 300)), ("task_type", OneOf(&["reply", "summary"]))],
    ),
    row("ai.response_ready", 1, &[("task_id", Id("task", 300)), ("response", Text)]),
    row("demo.generating", 1, &[("demo_id", Id("d", 30)), ("percent", Percent)]),
    row("lead.created", 2, &[("lead_id", Id("lead", 900)), ("name", Name), ("score", Percent)]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_the_groups_add_up_to_a_hundred() {
        assert_eq!(MIX.iter().map(|group| group.percent).sum::<u32>(), 100);
    }

    #[test]
    fn no_type_stands_in_the_mix_twice() {
        let types: Vec<_> =
            MIX.iter().flat_map(|group| group.rows).map(|row| row.event_type).collect();
        let distinct: std::collections::BTreeSet<_> = types.iter().collect();
        assert_eq!(types.len(), distinct.len());
        assert!(types.len() >= 35, "many types, {}", types.len());
    }
}
