//! Unpacks a compressed body, claiming its bytes as they come out of the decoder.
//!
//! A few bytes may unpack to gigabytes and a header can't be trusted to tell, so the decoder is
//! read in small parts, up to [`BODY_BYTES`]. The packed bytes are returned to the budget at the
//! end.

use std::io::Read;

use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use tidewire_engine::fanout::protocol::native::ErrorCode;

use super::body_budget::BodyPermit;
use super::request_headers::single;
use super::response::ErrorResponse;
use crate::socket::limits::BODY_BYTES;

/// The largest window of a zstd body, as a power of two: 8 MiB, which RFC 8878 recommends every
/// decoder to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Bytes read from a decoder at once.
const PART_BYTES: usize = 64 * 1_024;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentEncoding {
    Identity,
    Gzip,
    Deflate,
    Zstd,
}

impl ContentEncoding {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ErrorResponse> {
        let sent = single(headers, CONTENT_ENCODING.as_str())?.unwrap_or_default();
        match sent.to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            "zstd" => Ok(Self::Zstd),
            _ => Err(ErrorResponse::unsupported(
                "Content-Encoding",
                sent,
                "gzip, deflate, zstd or no encoding",
            )),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    /// The body without its compression. `permit` holds the bytes of `body`, then those of the
    /// result.
    pub(super) fn unpack(
        self,
        body: Vec<u8>,
        permit: &mut BodyPermit,
    ) -> Result<Vec<u8>, ErrorResponse> {
        let packed = &body[..];
        let unpacked = match self {
            Self::Identity => return Ok(body),
            Self::Gzip => self.read(MultiGzDecoder::new(packed), permit),
            Self::Deflate => self.read(ZlibDecoder::new(packed), permit),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)
                    .map_err(|error| self.broken(&error))?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|error| self.broken(&error))?;
                self.read(decoder, permit)
            }
        }?;
        let packed_bytes = body.len();
        drop(body);
        permit.release(packed_bytes);
        Ok(unpacked)
    }

    fn read(
        self,
        mut decoder: impl Read,
        permit: &mut BodyPermit,
    ) -> Result<Vec<u8>, ErrorResponse> {
        let mut unpacked = Vec::new();
        let mut part = vec![0; PART_BYTES];
        loop {
            let count = decoder.read(&mut part).map_err(|error| self.broken(&error))?;
            if count == 0 {
                return Ok(unpacked);
            }
            if unpacked.len() + count > BODY_BYTES {
                return Err(ErrorResponse::body_too_large());
            }
            permit.claim(count)?;
            unpacked.extend_from_slice(&part[..count]);
        }
    }

    fn broken(self, error: &std::io::Error) -> ErrorResponse {
        let message =
            format!("the body can't be unpacked by its Content-Encoding {}: {error}", self.name());
        ErrorResponse::new(ErrorCode::InvalidMessage, message)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::super::body_budget::BodyBudget;
    use super::*;
    use crate::socket::limits::ConnectionLimits;

    fn of(names: &[&'static str]) -> Result<ContentEncoding, ErrorResponse> {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        ContentEncoding::of(&headers)
    }

    fn bomb(bytes: usize) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::copy(&mut std::io::repeat(b' ').take(bytes as u64), &mut packer).expect("memory");
        packer.finish().expect("memory")
    }

    /// Unpacks a body whose bytes are claimed; returns the bytes that are claimed after it too.
    fn unpack(
        encoding: ContentEncoding,
        packed: Vec<u8>,
    ) -> (Result<Vec<u8>, ErrorResponse>, usize) {
        let mut permit = BodyBudget::new(&ConnectionLimits::for_open_files(1_024)).permit(None);
        permit.claim(packed.len()).expect("an empty budget");
        (encoding.unpack(packed, &mut permit), permit.bytes())
    }

    #[test]
    fn the_header_names_one_encoding() {
        assert_eq!(of(&[]).expect("none"), ContentEncoding::Identity);
        assert_eq!(
            of(&["", "GZIP", "gzip"]).err().map(|e| e.status),
            Some(StatusCode::BAD_REQUEST)
        );
        assert_eq!(of(&["", "GZip"]).expect("known"), ContentEncoding::Gzip);
        assert_eq!(of(&["gzip", "gzip"]).expect("the same"), ContentEncoding::Gzip);
        let refused = of(&["gzip", "zstd"]).expect_err("two");
        assert!(refused.message.contains("content-encoding"), "{}", refused.message);
        assert_eq!(of(&["br"]).expect_err("unknown").status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }

    #[test]
    fn unpacking_stops_at_the_size_limit_and_claims_what_it_made() {
        let (unpacked, claimed) = unpack(ContentEncoding::Gzip, bomb(BODY_BYTES));
        assert_eq!((unpacked.expect("it just fits").len(), claimed), (BODY_BYTES, BODY_BYTES));
        let large = bomb(4 * BODY_BYTES);
        let packed_bytes = large.len();
        let (refused, claimed) = unpack(ContentEncoding::Gzip, large);
        assert_eq!(refused.expect_err("four times").status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(claimed <= BODY_BYTES + packed_bytes, "{claimed}");
        let cut = bomb(100);
        let (refused, _) = unpack(ContentEncoding::Gzip, cut[..cut.len() - 9].to_vec());
        assert_eq!(refused.expect_err("cut off").status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn every_encoding_is_unpacked_or_named_in_the_error() {
        let packed = zstd::encode_all(&b"{}"[..], 3).expect("memory");
        assert_eq!(unpack(ContentEncoding::Zstd, packed).0.expect("zstd"), b"{}");
        for encoding in [ContentEncoding::Gzip, ContentEncoding::Deflate, ContentEncoding::Zstd] {
            let refused = unpack(encoding, b"{\"a\":1}".to_vec()).0.expect_err("not packed");
            assert!(refused.message.contains(encoding.name()), "{}", refused.message);
        }
        assert_eq!(unpack(ContentEncoding::Identity, b"{}".to_vec()).0.expect("as it is"), b"{}");
    }
}
