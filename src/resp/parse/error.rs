//! Why a request is refused, in the words of Redis: for the client and for the log.

use std::fmt;

/// Why a request is refused; the connection is closed after the error reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// An inline request without an end.
    TooBigInline,
    /// A quote is left open, or a closing quote is not followed by a space.
    UnbalancedQuotes,
    /// A `*` line without an end.
    TooBigMultibulkCount,
    /// The number of arguments is no number, or too big.
    InvalidMultibulkLength,
    /// Too many arguments for a client that has not authenticated.
    UnauthenticatedMultibulk,
    /// A `$` line without an end.
    TooBigBulkCount,
    /// Something else than `$` where a bulk should start.
    ExpectedDollar(u8),
    /// The length of a bulk is no number, negative, or too big.
    InvalidBulkLength,
    /// Too long a bulk for a client that has not authenticated.
    UnauthenticatedBulk,
}

impl ProtocolError {
    /// What the server's log calls the error.
    pub fn log_reason(self) -> &'static str {
        match self {
            ProtocolError::TooBigInline => "too big inline request",
            ProtocolError::UnbalancedQuotes => "unbalanced quotes in inline request",
            ProtocolError::TooBigMultibulkCount => "too big mbulk count string",
            ProtocolError::InvalidMultibulkLength => "invalid mbulk count",
            ProtocolError::UnauthenticatedMultibulk => "unauth mbulk count",
            ProtocolError::TooBigBulkCount => "too big bulk count string",
            ProtocolError::ExpectedDollar(_) => "expected $ but got something else",
            ProtocolError::InvalidBulkLength => "invalid bulk length",
            ProtocolError::UnauthenticatedBulk => "unauth bulk length",
        }
    }

    /// The text for the client, without an error code, as bytes: the offending byte of
    /// [`ProtocolError::ExpectedDollar`] is repeated as it came.
    pub fn message(self) -> Vec<u8> {
        let ProtocolError::ExpectedDollar(byte) = self else {
            return self.to_string().into_bytes();
        };
        let mut text = b"Protocol error: expected '$', got '".to_vec();
        text.push(byte);
        text.push(b'\'');
        text
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            ProtocolError::TooBigInline => "too big inline request",
            ProtocolError::UnbalancedQuotes => "unbalanced quotes in request",
            ProtocolError::TooBigMultibulkCount => "too big mbulk count string",
            ProtocolError::InvalidMultibulkLength => "invalid multibulk length",
            ProtocolError::UnauthenticatedMultibulk => "unauthenticated multibulk length",
            ProtocolError::TooBigBulkCount => "too big bulk count string",
            ProtocolError::InvalidBulkLength => "invalid bulk length",
            ProtocolError::UnauthenticatedBulk => "unauthenticated bulk length",
            ProtocolError::ExpectedDollar(byte) => {
                return write!(
                    f,
                    "Protocol error: expected '$', got '{}'",
                    char::from(*byte)
                );
            }
        };
        write!(f, "Protocol error: {text}")
    }
}

impl std::error::Error for ProtocolError {}
