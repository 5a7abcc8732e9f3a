//! Decodes the key of a record of the state topic; `derive/state_channel.rs` has its layout.

/// Between the channel, the account and the state key. None of the first two has it.
pub(super) const SEPARATOR: u8 = 0;

/// What the key of a record of state says.
#[derive(Clone, Copy, Debug)]
pub(super) struct StateRecordKey<'a> {
    pub(super) channel: &'a str,
    pub(super) account: &'a str,
    pub(super) state_key: &'a str,
}

impl<'a> StateRecordKey<'a> {
    /// `None` if it is no text of three parts, or names no account.
    pub(super) fn decode(key: &'a [u8]) -> Option<Self> {
        let separator = char::from(SEPARATOR);
        let (channel, rest) = std::str::from_utf8(key).ok()?.split_once(separator)?;
        let (account, state_key) = rest.split_once(separator)?;
        (!account.is_empty()).then_some(Self { channel, account, state_key })
    }
}
