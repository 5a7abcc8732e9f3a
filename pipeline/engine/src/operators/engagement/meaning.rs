//! What each event type means for the counts of a post.

use std::borrow::Cow;

use crate::derive::{Input, OperatorError};
use crate::operators::engagement::acts::Turn;
use crate::operators::engagement::counts::COUNTED;

/// What marks a reaction for an update, and what is the kind of its acts: this, then the reaction.
pub(super) const REACTION: &str = "reaction/";

/// What an event says about a post.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EngagementMeaning<'a> {
    /// Counts that a producer sets, by their index in [`COUNTED`].
    Reports(Vec<(usize, i64)>),
    /// An act that counts for a field of [`COUNTED`].
    Act { field: usize, act: Act<'a> },
    /// A reaction.
    Reaction(ReactionMeaning<'a>),
}

/// What somebody did, or withdrew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Act<'a> {
    /// Acts of one kind and who count once.
    pub(super) kind: Cow<'static, str>,
    /// The user, or the id of what counts.
    pub(super) who: Cow<'a, str>,
    pub(super) turn: Turn,
}

/// A reaction or its withdrawal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReactionMeaning<'a> {
    pub(super) reaction: Cow<'a, str>,
    pub(super) act: Act<'a>,
    /// The count that the event states.
    pub(super) reported: Option<i64>,
    /// The author of the post.
    pub(super) author: Option<Cow<'a, str>>,
}

/// What an event means; fails if it lacks a field that admission requires.
pub(super) fn meaning_of<'a>(event: &'a Input<'_>) -> Result<EngagementMeaning<'a>, OperatorError> {
    let act = |name, (kind, who): (&'static str, &str), turn| {
        let field = COUNTED.iter().position(|counted| *counted == name).unwrap_or_default();
        let act = Act { kind: Cow::Borrowed(kind), who: text(event, who)?, turn };
        Ok(EngagementMeaning::Act { field, act })
    };
    match event.event_type {
        "post.liked" => act("likes", ("like", "user_id"), Turn::On),
        "post.unliked" => act("likes", ("like", "user_id"), Turn::Off),
        "post.reposted" => act("retweets", ("repost", "user_id"), Turn::On),
        "post.unreposted" => act("retweets", ("repost", "user_id"), Turn::Off),
        "post.replied" => act("replies", ("reply", "reply_id"), Turn::On),
        "post.quoted" => act("quotes", ("quote", "quote_id"), Turn::On),
        "post.ai_responded" => act("replies", ("response", "response_id"), Turn::On),
        "post.reacted" => reaction(event, Turn::On),
        "post.unreacted" => reaction(event, Turn::Off),
        "engagement.reported" => Ok(EngagementMeaning::Reports(reported(event))),
        other => Err(OperatorError::Failed(format!(
            "engagement does not count {other}; remove it from the type's `moves`"
        ))),
    }
}

fn reaction<'a>(event: &'a Input<'_>, turn: Turn) -> Result<EngagementMeaning<'a>, OperatorError> {
    let reaction = text(event, "reaction_type")?;
    let kind = [REACTION, &reaction].concat().into();
    Ok(EngagementMeaning::Reaction(ReactionMeaning {
        reaction,
        act: Act { kind, who: text(event, "user_id")?, turn },
        reported: event.fields().integer("count").filter(|_| turn == Turn::On),
        author: event.fields().text("author_id"),
    }))
}

/// The counts that a report sets.
fn reported(event: &Input<'_>) -> Vec<(usize, i64)> {
    let value = |(field, name): (usize, &&str)| Some((field, event.fields().integer(name)?));
    COUNTED.iter().enumerate().filter_map(value).collect()
}

fn text<'a>(event: &'a Input<'_>, name: &str) -> Result<Cow<'a, str>, OperatorError> {
    let text = event.fields().text(name);
    text.ok_or_else(|| OperatorError::Failed(format!("{} has no {name}", event.event_type)))
}
