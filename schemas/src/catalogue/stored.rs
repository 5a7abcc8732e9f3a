//! The files of a catalogue as one record of the topic `catalogues`.
//!
//! ```text
//! 01 · number of files u16 · each file: name (u8 length, bytes) · text (u32 length, bytes)
//! ```
//!
//! Numbers are big-endian, texts UTF-8. The files are in the order of their names, without folder
//! and without `.toml`. What is built in is no part of it: the reader compiles the files with its
//! own. So the record of no file is three bytes.

use super::errors::CatalogueErrors;
use super::lookup::Catalogue;
use super::model::OwnFile;

/// The first byte.
const VERSION: u8 = 1;

/// The most bytes of the form: one record of the log, which brokers limit to 1 MiB by default.
pub const STORED_MAX_BYTES: usize = 768 << 10;

/// The most files.
pub const STORED_MAX_FILES: usize = 1_000;

/// Bytes that are no stored catalogue of a version that this build reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored catalogue is cut off, is no text, or was written by a later build")]
pub struct InvalidStored;

/// Encodes the files; `None` if they are too many or too large.
pub fn encode(files: &[OwnFile]) -> Option<Vec<u8>> {
    let count = u16::try_from(files.len()).ok().filter(|_| files.len() <= STORED_MAX_FILES)?;
    let mut out = vec![VERSION];
    out.extend_from_slice(&count.to_be_bytes());
    for OwnFile { name, text } in files {
        out.push(u8::try_from(name.len()).ok()?);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&u32::try_from(text.len()).ok()?.to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    (out.len() <= STORED_MAX_BYTES).then_some(out)
}

/// Decodes what [`encode`] gave.
pub fn decode(bytes: &[u8]) -> Result<Vec<OwnFile>, InvalidStored> {
    let mut rest = bytes;
    let mut take = |count: usize| -> Result<&[u8], InvalidStored> {
        let (taken, left) = rest.split_at_checked(count).ok_or(InvalidStored)?;
        rest = left;
        Ok(taken)
    };
    if take(1)? != [VERSION] {
        return Err(InvalidStored);
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| InvalidStored);
    let count = u16::from_be_bytes(*take(2)?.first_chunk().ok_or(InvalidStored)?);
    let mut files = Vec::new();
    for _ in 0..count {
        let length = usize::from(take(1)?[0]);
        let name = text(take(length)?)?;
        let length = u32::from_be_bytes(*take(4)?.first_chunk().ok_or(InvalidStored)?);
        let text = text(take(usize::try_from(length).map_err(|_| InvalidStored)?)?)?;
        files.push(OwnFile { name, text });
    }
    if rest.is_empty() { Ok(files) } else { Err(InvalidStored) }
}

impl Catalogue {
    /// The built-in catalogue with what stored files add.
    pub fn of_stored(files: &[OwnFile]) -> Result<Self, CatalogueErrors> {
        let files: Vec<(&str, &str)> =
            files.iter().map(|file| (&file.name[..], &file.text[..])).collect();
        Self::extended(&files)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn files() -> impl Strategy<Value = Vec<OwnFile>> {
        let file = (".{0,60}", ".{0,200}").prop_map(|(name, text)| OwnFile { name, text });
        prop::collection::vec(file, 0..5)
    }

    proptest! {
        #[test]
        fn files_read_back(files in files()) {
            let bytes = encode(&files).expect("they are small");
            prop_assert_eq!(decode(&bytes), Ok(files));
            for end in 0..bytes.len() {
                prop_assert!(decode(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(files) = decode(&bytes) {
                prop_assert_eq!(encode(&files), Some(bytes));
            }
        }
    }

    #[test]
    fn no_file_is_three_bytes_and_too_much_is_refused() {
        assert_eq!(encode(&[]), Some(vec![1, 0, 0]));
        let file = |bytes: usize| OwnFile { name: "a".into(), text: "x".repeat(bytes) };
        assert!(encode(&[file(STORED_MAX_BYTES - 9)]).is_some());
        assert!(encode(&[file(STORED_MAX_BYTES - 8)]).is_none());
        assert!(encode(&vec![file(0); STORED_MAX_FILES + 1]).is_none());
        assert!(encode(&[OwnFile { name: "n".repeat(256), text: String::new() }]).is_none());
    }
}
