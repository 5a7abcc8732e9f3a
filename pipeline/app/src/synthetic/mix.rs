//! The table of synthetic traffic: how often each event type occurs, and what its `data` contains.
//!
//! Three groups, 60 % reactions, 20 % posts and 20 % other types, as in a social stream; the
//! benchmarks are stated for this mix. Weights are shares within a group. A new type is a new row.

use FieldValue::{
    Count, Id, Name, OneOf, Part, Percent, Post, PostAuthor, Text, Topic, Topics, User,
};

/// How a field's value is generated.
#[derive(Clone, Copy, Debug)]
pub enum FieldValue {
    /// The post this event is about.
    Post,
    /// The author of that post.
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
    /// This word with a number below the bound.
    Id(&'static str, u32),
    /// This word with the event's own number, so that it is unique.
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

/// An event type and how its events are generated.
#[derive(Debug)]
pub struct EventTemplate {
    /// Canonical type.
    pub event_type: &'static str,
    /// Its share within its group.
    pub weight: u32,
    /// The fields of `data`.
    pub fields: &'static [(&'static str, FieldValue)],
}

const fn template(
    event_type: &'static str,
    weight: u32,
    fields: &'static [(&'static str, FieldValue)],
) -> EventTemplate {
    EventTemplate { event_type, weight, fields }
}

/// Types of one kind and their share of all events.
#[derive(Debug)]
pub struct TemplateGroup {
    /// Percent of all events.
    pub percent: u32,
    /// The types.
    pub templates: &'static [EventTemplate],
}

/// The whole mix; the shares add up to 100.
pub const MIX: &[TemplateGroup] = &[
    TemplateGroup { percent: 60, templates: REACTIONS },
    TemplateGroup { percent: 20, templates: POSTS },
    TemplateGroup { percent: 20, templates: REST },
];

const ACT: &[(&str, FieldValue)] =
    &[("post_id", Post), ("user_id", User), ("user_name", Name), ("author_id", PostAuthor)];
const REACT: &[(&str, FieldValue)] = &[
    ("post_id", Post),
    ("user_id", User),
    ("author_id", PostAuthor),
    ("reaction_type", OneOf(&["heart", "laugh", "wow", "wave", "fire"])),
];
const MESSAGE: &[(&str, FieldValue)] = &[
    ("message_id", FieldValue::Fresh("m")),
    ("conversation_id", Id("c", 200)),
    ("sender_id", User),
    ("sender_name", Name),
    ("recipient_id", FieldValue::Other),
    ("text", Text),
];
const EMAIL: &[(&str, FieldValue)] = &[
    ("email_id", Id("mail", 5_000)),
    ("campaign_id", Id("camp", 8)),
    ("lead_id", Id("lead", 900)),
];

const REACTIONS: &[EventTemplate] = &[
    template("post.liked", 56, ACT),
    template("post.reacted", 14, REACT),
    template("post.reposted", 10, ACT),
    template("reaction.live", 8, REACT),
    template(
        "post.replied",
        5,
        &[
            ("post_id", Post),
            ("user_id", User),
            ("author_id", PostAuthor),
            ("reply_id", FieldValue::Fresh("p")),
            ("text", Text),
        ],
    ),
    template("post.unliked", 4, ACT),
    template(
        "post.quoted",
        2,
        &[
            ("post_id", Post),
            ("user_id", User),
            ("author_id", PostAuthor),
            ("quote_id", FieldValue::Fresh("p")),
            ("text", Text),
        ],
    ),
    template("post.unreposted", 1, ACT),
];

const POSTS: &[EventTemplate] = &[
    template(
        "post.created",
        84,
        &[
            ("post_id", FieldValue::Fresh("p")),
            ("author_id", User),
            ("text", Text),
            ("lang", OneOf(&["en", "ja", "es", "de", "fr"])),
            ("topics", Topics),
            ("region", OneOf(&["eu", "us", "apac", "global"])),
        ],
    ),
    template(
        "post.published",
        6,
        &[
            ("post_id", FieldValue::Fresh("p")),
            ("author_id", User),
            ("text", Text),
            ("platform", OneOf(&["x", "mastodon", "bluesky"])),
        ],
    ),
    template("post.updated", 5, &[("post_id", Post), ("author_id", PostAuthor), ("text", Text)]),
    template("post.deleted", 3, &[("post_id", Post), ("author_id", PostAuthor)]),
    template(
        "post.failed",
        2,
        &[
            ("post_id", FieldValue::Fresh("p")),
            ("error", OneOf(&["rejected by the platform", "the link has expired"])),
            ("retryable", FieldValue::Either),
        ],
    ),
];

const REST: &[EventTemplate] = &[
    template(
        "mention.created",
        12,
        &[
            ("author_id", User),
            ("text", Text),
            ("post_id", Post),
            ("mentioned_user_id", FieldValue::Other),
            ("sentiment", Part),
        ],
    ),
    template(
        "user.followed",
        10,
        &[("user_id", User), ("target_id", FieldValue::Other), ("user_name", Name)],
    ),
    template("user.unfollowed", 2, &[("user_id", User), ("target_id", FieldValue::Other)]),
    template("message.received", 9, MESSAGE),
    template("message.sent", 6, MESSAGE),
    template("message.read", 4, &[("conversation_id", Id("c", 200)), ("reader_id", User)]),
    template(
        "chat.message",
        7,
        &[("thread_id", Id("t", 40)), ("user_id", User), ("user_name", Name), ("text", Text)],
    ),
    template("typing.start", 5, &[("scope", Id("t", 40)), ("user_id", User)]),
    template(
        "presence.changed",
        4,
        &[("user_id", User), ("status", OneOf(&["online", "away", "offline"]))],
    ),
    template(
        "notification.created",
        6,
        &[
            ("notification_id", FieldValue::Fresh("n")),
            ("user_id", FieldValue::Other),
            ("kind", OneOf(&["like", "reply", "follow", "mention"])),
            ("actor_id", User),
            ("actor_name", Name),
            ("post_id", Post),
        ],
    ),
    template("notification.read", 2, &[("user_id", User), ("notification_id", Id("n", 100_000))]),
    template(
        "news.published",
        2,
        &[("news_id", FieldValue::Fresh("news")), ("title", Text), ("topics", Topics)],
    ),
    template("trend.reported", 3, &[("topic", Topic), ("post_count", Count(500))]),
    template(
        "metric.updated",
        3,
        &[
            ("metric", OneOf(&["followers", "posts_published", "messages_received"])),
            ("value", Count(10_000)),
        ],
    ),
    template(
        "account.followers_changed",
        2,
        &[("followers", Count(100_000)), ("change", Count(9))],
    ),
    template("account.login", 1, &[("success", FieldValue::Either)]),
    template(
        "account.rate_limited",
        1,
        &[("endpoint", OneOf(&["timeline", "search", "post"])), ("remaining", Count(5))],
    ),
    template(
        "account.health_alert",
        2,
        &[
            ("alert_type", OneOf(&["error_rate", "latency", "token_expiring"])),
            ("severity", OneOf(&["low", "medium", "high", "critical"])),
            ("message", Text),
        ],
    ),
    template(
        "account.detection_event",
        1,
        &[
            ("detection_type", OneOf(&["captcha", "challenge", "unusual_login"])),
            ("severity", OneOf(&["low", "medium", "high"])),
        ],
    ),
    template(
        "campaign.email_sent",
        3,
        &[
            ("campaign_id", Id("camp", 8)),
            ("email_id", Id("mail", 5_000)),
            ("sent", Count(5_000)),
            ("total", Count(5_000)),
        ],
    ),
    template("email.delivered", 3, EMAIL),
    template("email.opened", 3, EMAIL),
    template("email.clicked", 1, EMAIL),
    template(
        "scraper.progress",
        3,
        &[
            ("scraper_id", Id("s", 4)),
            ("current", Count(100)),
            ("total", Count(100)),
            ("source", OneOf(&["directory", "job_board"])),
        ],
    ),
    template(
        "ai.processing",
        1,
        &[("task_id", Id("task", 300)), ("task_type", OneOf(&["reply", "summary"]))],
    ),
    template("ai.response_ready", 1, &[("task_id", Id("task", 300)), ("response", Text)]),
    template("demo.generating", 1, &[("demo_id", Id("d", 30)), ("percent", Percent)]),
    template(
        "lead.created",
        2,
        &[("lead_id", Id("lead", 900)), ("name", Name), ("score", Percent)],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_the_groups_add_up_to_a_hundred() {
        assert_eq!(MIX.iter().map(|group| group.percent).sum::<u32>(), 100);
    }

    #[test]
    fn no_type_is_in_the_mix_twice() {
        let types: Vec<_> = MIX
            .iter()
            .flat_map(|group| group.templates)
            .map(|template| template.event_type)
            .collect();
        let distinct: std::collections::BTreeSet<_> = types.iter().collect();
        assert_eq!(types.len(), distinct.len());
        assert!(types.len() >= 35, "many types, {}", types.len());
    }
}
