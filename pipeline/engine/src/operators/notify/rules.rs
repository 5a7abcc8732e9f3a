//! What each event type means to a recipient: kind, recipient, actor, entity, title and details.
//!
//! The table names fields of the event's data. All that a notification says is in it, so another
//! type needs an entry here and its `moves` in the catalogue.
//!
//! Every text is plain and short: names and texts of producers are cut, so that a notification has
//! a few hundred bytes.

use std::borrow::Cow;

use tidewire_schemas::fields::{FieldWriter, Fields};

use crate::derive::Input;

/// Characters of a name in a title.
const NAME_MAX_CHARS: usize = 80;

/// Characters of a text: the beginning of a post, message or review.
const TEXT_MAX_CHARS: usize = 280;

/// Bytes of a link; a longer one is left out.
const LINK_MAX_BYTES: usize = 2_048;

/// Bytes of a detail, as JSON text; a longer one is left out.
const DETAIL_MAX_BYTES: usize = 1_024;

/// What an event type means to a recipient. Fields are names in the event's data.
#[derive(Debug)]
pub(super) struct NotificationRule {
    pub(super) event_type: &'static str,
    /// The kind; of `notify.due` the event says it.
    pub(super) kind: &'static str,
    /// The fields that name users it is for. If none of them gave the key, it is for the workspace.
    to: &'static [&'static str],
    /// The user who caused it.
    actor: &'static str,
    actor_name: &'static str,
    /// The fields that together name what it is about. Without any the event itself is the entity.
    entity: &'static [&'static str],
    text: &'static str,
    link: &'static str,
    /// Fields that are copied into `data`.
    details: &'static [&'static str],
}

/// A rule without a field; the name of no field is empty.
const NONE: NotificationRule = NotificationRule {
    event_type: "",
    kind: "",
    to: &[],
    actor: "",
    actor_name: "",
    entity: &[],
    text: "",
    link: "",
    details: &[],
};

/// A rule for what a user did with a post of the recipient.
const ACT: NotificationRule = NotificationRule {
    to: &["author_id"],
    actor: "user_id",
    actor_name: "user_name",
    entity: &["post_id"],
    ..NONE
};

/// The rules, one per type.
pub(super) const RULES: &[NotificationRule] = &[
    NotificationRule { event_type: "post.liked", kind: "like", ..ACT },
    NotificationRule {
        event_type: "post.reposted",
        kind: "retweet",
        details: &["repost_id"],
        ..ACT
    },
    NotificationRule {
        event_type: "post.replied",
        kind: "reply",
        entity: &["post_id", "reply_id"],
        text: "text",
        details: &["reply_id"],
        ..ACT
    },
    NotificationRule {
        event_type: "post.quoted",
        kind: "quote",
        entity: &["post_id", "quote_id"],
        text: "text",
        details: &["quote_id"],
        ..ACT
    },
    NotificationRule {
        event_type: "notify.due",
        to: &["user_id"],
        actor: "actor_id",
        actor_name: "actor_name",
        entity: &["post_id", "reply_id", "quote_id"],
        text: "text",
        details: &["reply_id", "quote_id", "repost_id"],
        ..NONE
    },
    NotificationRule {
        event_type: "user.followed",
        kind: "follow",
        to: &["target_id"],
        entity: &["target_id"],
        ..ACT
    },
    NotificationRule {
        event_type: "post.created",
        kind: "mention",
        to: &["mentions"],
        actor: "author_id",
        entity: &["post_id"],
        text: "text",
        link: "url",
        ..NONE
    },
    NotificationRule {
        event_type: "mention.created",
        kind: "mention",
        to: &["mentioned_user_id"],
        actor: "author_id",
        entity: &["post_id"],
        text: "text",
        link: "url",
        details: &["platform"],
        ..NONE
    },
    NotificationRule {
        event_type: "message.received",
        kind: "message",
        to: &["recipient_id", "assignee_id"],
        actor: "sender_id",
        actor_name: "sender_name",
        entity: &["conversation_id", "message_id"],
        text: "text",
        details: &["conversation_id", "message_id", "platform"],
        ..NONE
    },
    NotificationRule {
        event_type: "approval.requested",
        kind: "approval",
        to: &["approver_ids"],
        actor: "requested_by",
        entity: &["approval_id"],
        text: "title",
        details: &["approval_id"],
        ..NONE
    },
    NotificationRule {
        event_type: "approval.resolved",
        kind: "approval",
        to: &["requested_by"],
        actor: "user_id",
        entity: &["approval_id", "decision"],
        text: "comment",
        details: &["approval_id", "decision"],
        ..NONE
    },
    NotificationRule {
        event_type: "alert.raised",
        kind: "alert",
        to: &["user_id"],
        text: "message",
        link: "link",
        details: &["alert_type", "severity"],
        ..NONE
    },
    NotificationRule {
        event_type: "sla.escalated",
        kind: "alert",
        to: &["assignee_id"],
        entity: &["conversation_id", "message_id", "level"],
        details: &["conversation_id", "message_id", "level", "waiting_seconds"],
        ..NONE
    },
    NotificationRule {
        event_type: "post.published",
        kind: "post_published",
        to: &["user_id"],
        entity: &["post_id"],
        text: "text",
        link: "url",
        details: &["post_id", "platform"],
        ..NONE
    },
    NotificationRule {
        event_type: "post.failed",
        kind: "post_failed",
        to: &["user_id"],
        entity: &["post_id"],
        text: "error",
        details: &["post_id", "platform", "retryable"],
        ..NONE
    },
    NotificationRule {
        event_type: "crisis.detected",
        kind: "crisis",
        text: "message",
        details: &["severity", "current", "baseline", "ratio", "window_seconds"],
        ..NONE
    },
    NotificationRule {
        event_type: "crisis.resolved",
        kind: "crisis",
        text: "message",
        details: &["severity", "current", "baseline", "ratio", "window_seconds"],
        ..NONE
    },
    NotificationRule {
        event_type: "review.received",
        kind: "review",
        entity: &["review_id"],
        text: "text",
        link: "url",
        details: &["review_id", "rating", "author_name", "platform"],
        ..NONE
    },
];

/// Whom a notification is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recipient {
    /// The user of the key.
    User,
    /// Everyone of the account.
    Workspace,
}

impl NotificationRule {
    /// The rule of a type.
    pub(super) fn of(event_type: &str) -> Option<&'static Self> {
        RULES.iter().find(|rule| rule.event_type == event_type)
    }

    /// Whom the event is for, if the routing plan gave this key. A field gave it if it has that
    /// value: then it is a user, even one whose id is the account's.
    pub(super) fn recipient(&self, fields: &Fields<'_>, key: &str) -> Recipient {
        if self.event_type == "sla.escalated" && fields.text("level").as_deref() == Some("2") {
            return Recipient::Workspace;
        }
        let gave = |name: &&&str| {
            fields.text(name).is_some_and(|id| id == key)
                || fields.texts(name).iter().any(|id| id == key)
        };
        match self.to.iter().find(gave) {
            Some(_) => Recipient::User,
            None => Recipient::Workspace,
        }
    }

    /// All fields that it names.
    #[cfg(test)]
    pub(super) fn fields(&self) -> Vec<&'static str> {
        let single = [self.actor, self.actor_name, self.text, self.link];
        let single = single.into_iter().filter(|name| !name.is_empty());
        let lists = [self.to, self.entity, self.details].concat();
        single.chain(lists).collect()
    }

    /// The kind of the notification.
    pub(super) fn kind_of<'a>(&self, fields: &'a Fields<'_>) -> Cow<'a, str> {
        match self.event_type {
            "notify.due" => fields.text("kind").unwrap_or_default(),
            _ => Cow::Borrowed(self.kind),
        }
    }

    /// The user who caused the event.
    pub(super) fn actor<'a>(&self, fields: &'a Fields<'_>) -> Option<Cow<'a, str>> {
        text_of(fields, self.actor)
    }

    /// What the event is about, as text that differs for different entities.
    pub(super) fn entity(&self, event: &Input<'_>) -> String {
        let mut entity = String::with_capacity(64);
        for name in self.entity {
            let Some(id) = event.fields().text(name) else { continue };
            for text in [name, "=", &id.len().to_string(), ":", &id, "/"] {
                entity.push_str(text);
            }
        }
        if entity.is_empty() { ["event=", event.event_id].concat() } else { entity }
    }

    /// The data of the notification.
    pub(super) fn notification(&self, event: &Input<'_>, to: &Addressed<'_>) -> String {
        let fields = event.fields();
        let kind = self.kind_of(fields);
        let (actor, actor_name) = (self.actor(fields), self.actor_name(fields));
        let who = actor_name.as_deref().or(actor.as_deref()).unwrap_or("Someone");
        let title = self.title(fields, (to.recipient, who));
        let text = text_of(fields, self.text).map(|text| cut(text, TEXT_MAX_CHARS));
        let link = text_of(fields, self.link).filter(|link| link.len() <= LINK_MAX_BYTES);
        let mut out = FieldWriter::default()
            .text("notification_id", to.notification_id)
            .text("kind", &kind)
            .text("title", &title)
            .text_if("text", text.as_deref())
            .text_if("link", link.as_deref());
        if to.recipient == Recipient::User {
            out = out
                .text("user_id", to.key)
                .text_if("actor_id", actor.as_deref())
                .text_if("actor_name", actor_name.as_deref())
                .text_if("post_id", fields.text("post_id").as_deref());
        }
        match self.details(fields) {
            Some(details) => out.raw("data", &details).end(),
            None => out.end(),
        }
    }

    fn details(&self, fields: &Fields<'_>) -> Option<String> {
        let found = self.details.iter().filter_map(|name| Some((*name, fields.raw(name)?)));
        let mut found = found.filter(|(_, json)| json.len() <= DETAIL_MAX_BYTES).peekable();
        found.peek()?;
        Some(found.fold(FieldWriter::default(), |out, (name, json)| out.raw(name, json)).end())
    }

    fn actor_name<'a>(&self, fields: &'a Fields<'_>) -> Option<Cow<'a, str>> {
        let of_author = || {
            let author = fields.object("author").filter(|_| self.actor == "author_id");
            author.and_then(|author| author.text("name").map(|name| name.into_owned().into()))
        };
        let name = text_of(fields, self.actor_name).or_else(of_author);
        name.map(|name| cut(name, NAME_MAX_CHARS))
    }

    /// The title; `who` caused the event.
    fn title(&self, fields: &Fields<'_>, (recipient, who): (Recipient, &str)) -> Cow<'static, str> {
        let user = recipient == Recipient::User;
        let value = |field| cut(fields.text(field).unwrap_or_default(), NAME_MAX_CHARS);
        let title = match &self.kind_of(fields)[..] {
            "like" => [who, " liked your post"].concat(),
            "reply" => [who, " replied to your post"].concat(),
            "retweet" => [who, " reposted your post"].concat(),
            "quote" => [who, " quoted your post"].concat(),
            "follow" => [who, " followed you"].concat(),
            "mention" if user => [who, " mentioned you"].concat(),
            "mention" => [who, " mentioned this workspace"].concat(),
            "message" => ["New message from ", who].concat(),
            "approval" if self.event_type == "approval.resolved" => {
                ["Approval request: ", &value("decision")].concat()
            }
            "approval" => [who, " requests approval"].concat(),
            "alert" if self.event_type == "sla.escalated" => {
                let minutes = fields.integer("waiting_seconds").unwrap_or_default() / 60;
                format!("A message has waited {minutes} min for an answer")
            }
            "alert" => ["Alert: ", &value("alert_type")].concat(),
            "post_published" if user => return "Your post was published".into(),
            "post_published" => return "A post was published".into(),
            "post_failed" if user => return "Your post was not published".into(),
            "post_failed" => return "A post was not published".into(),
            "crisis" if self.event_type == "crisis.resolved" => return "Crisis resolved".into(),
            "crisis" => ["Crisis detected, severity ", &value("severity")].concat(),
            "review" => ["New review, rating ", &value("rating")].concat(),
            _ => ["Activity of ", who].concat(),
        };
        title.into()
    }
}

/// Whom a notification is for, and its id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addressed<'a> {
    pub(super) recipient: Recipient,
    /// The user, or the account.
    pub(super) key: &'a str,
    pub(super) notification_id: &'a str,
}

/// A field of a rule; `None` for a rule without one, whatever members the data has.
fn text_of<'a>(fields: &'a Fields<'_>, name: &str) -> Option<Cow<'a, str>> {
    if name.is_empty() { None } else { fields.text(name) }
}

/// At most this many characters of a text.
fn cut(text: Cow<'_, str>, max_chars: usize) -> Cow<'_, str> {
    if text.len() <= max_chars {
        return text;
    }
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => [&text[..end], "…"].concat().into(),
        None => text,
    }
}
