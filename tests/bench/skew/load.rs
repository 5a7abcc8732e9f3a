//! The load: who sends it, what it concerns, and how it is posted.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tidewire_tests::http::HttpClient;
use tidewire_tests::publisher::{LineEncoder, PostTarget};

/// Accounts and posts of the even load.
pub(crate) const ACCOUNTS: u64 = 64;

/// How often a part of the load is posted.
const LOAD_EVERY: Duration = Duration::from_millis(50);

/// Events of one request.
const BATCH: u64 = 500;

/// An odd number, half of whose bits are set: multiples of it are spread over all numbers.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Who sends the load, and what it concerns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Skew {
    Even,
    Account,
    Post,
    /// Acts of this many users, one after the other of any of them.
    Users(u64),
}

impl Skew {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Even => "even".to_owned(),
            Self::Account => "one account".to_owned(),
            Self::Post => "one post".to_owned(),
            Self::Users(users) => format!("{users} users"),
        }
    }

    /// The event with a number.
    pub(crate) fn line(self) -> LineEncoder {
        Arc::new(move |n, body| {
            let event = match self {
                Self::Even => like(n, n % ACCOUNTS, n / ACCOUNTS % ACCOUNTS),
                Self::Account => like(n, 0, n % ACCOUNTS),
                Self::Post => like(n, 0, 0),
                Self::Users(users) => act(n, users),
            };
            body.extend_from_slice(event.as_bytes());
        })
    }
}

fn like(n: u64, account: u64, post: u64) -> String {
    format!(
        "{{\"event_id\":\"l-{n}\",\"event_type\":\"post.liked\",\"account_id\":\"load{account}\",\
         \"data\":{{\"post_id\":\"p{post}\",\"user_id\":\"u{n}\",\"author_id\":\"a{post}\"}}}}"
    )
}

/// A follow, a like or a post of one of the users; the first two concern another one.
fn act(n: u64, users: u64) -> String {
    let any = |n: u64| (n.wrapping_mul(SPREAD) >> 16) % users;
    let (user, other) = (any(2 * n), any(2 * n + 1));
    let (event_type, data) = match n % 3 {
        0 => ("user.followed", format!("\"user_id\":\"u{user}\",\"target_id\":\"u{other}\"")),
        1 => {
            let post = format!("\"post_id\":\"p{other}\",\"author_id\":\"u{other}\"");
            ("post.liked", format!("{post},\"user_id\":\"u{user}\""))
        }
        _ => {
            let post = format!("\"post_id\":\"q{n}\",\"author_id\":\"u{user}\"");
            ("post.created", format!("{post},\"text\":\"the tide goes out\""))
        }
    };
    format!(
        "{{\"event_id\":\"l-{n}\",\"event_type\":\"{event_type}\",\"account_id\":\"load0\",\
         \"data\":{{{data}}}}}"
    )
}

/// Posts this many events of the load as fast as the server takes them.
pub(crate) fn fill(load: &PostTarget, count: u64) -> io::Result<()> {
    let mut client = HttpClient::connect(load.addr)?;
    let mut done = 0;
    while done < count {
        let batch = BATCH.min(count - done);
        post(&mut client, load, (done, batch))?;
        done += batch;
    }
    Ok(())
}

/// Posts the load at its rate for some seconds.
pub(crate) fn send_load(
    load: &PostTarget,
    first: u64,
    (rate, seconds): (u64, u64),
) -> io::Result<()> {
    let mut client = HttpClient::connect(load.addr)?;
    let begin = Instant::now();
    let mut sent = 0;
    while begin.elapsed() < Duration::from_secs(seconds) {
        let due = (begin.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due {
            let batch = BATCH.min(due - sent);
            post(&mut client, load, (first + sent, batch))?;
            sent += batch;
        }
        thread::sleep(LOAD_EVERY);
    }
    Ok(())
}

fn post(client: &mut HttpClient, load: &PostTarget, (first, count): (u64, u64)) -> io::Result<()> {
    let mut body = Vec::new();
    for n in first..first + count {
        (load.line)(n, &mut body);
        body.push(b'\n');
    }
    loop {
        let response = client.post(load.path, "application/x-ndjson", &body)?;
        match response.status {
            202 => return Ok(()),
            // Full: a producer must wait and send again.
            429 | 503 => thread::sleep(Duration::from_millis(5)),
            status => return Err(io::Error::other(format!("{status}: {}", response.text()))),
        }
    }
}
