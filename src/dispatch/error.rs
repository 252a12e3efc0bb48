//! Why a command is refused or fails. The text that a client sees is made here and nowhere else.

use std::borrow::Cow;

use crate::base::text::before_nul;
use crate::keyspace::entry::WrongType;

/// The cause of an error reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The arguments do not make sense.
    Syntax,
    /// An argument is not an integer in range.
    NotInteger,
    /// An argument is not a number.
    NotFloat,
    /// The key holds another type.
    WrongType,
    /// There is no such key.
    NoSuchKey,
    /// An index beyond the value.
    IndexOutOfRange,
    /// A number outside of what the command takes.
    OutOfRange,
    /// A database number outside of what the server has.
    DbOutOfRange,
    /// Source and destination are one.
    SameObject,
    /// The value would be longer than `proto-max-bulk-len`.
    StringTooLong,
    /// Memory is short.
    OutOfMemory,
    /// The client must authenticate.
    NoAuth,
    /// A number that cannot be the expiry that a command sets.
    InvalidExpire(&'static str),
    /// A wrong number of arguments; the command's full name.
    Arity(Cow<'static, str>),
    /// Of a cluster, another node is to be asked, or none can serve it: the whole line.
    Elsewhere(Cow<'static, str>),
    /// It is to be tried again when another server that is waited for has answered: the request waits, and no
    /// reply tells of it but where nothing can wait.
    Later,
    /// A whole error line beginning with its code, without the `-`.
    Line(Cow<'static, str>),
    /// As [`Error::Line`], for lines that quote bytes of the client.
    Bytes(Vec<u8>),
}

impl From<WrongType> for Error {
    fn from(_: WrongType) -> Self {
        Self::WrongType
    }
}

/// What an error line quotes of an argument: a C string of at most `limit` bytes.
pub fn quoted(arg: &[u8], limit: usize) -> &[u8] {
    let text = before_nul(arg);
    &text[..text.len().min(limit)]
}

impl Error {
    /// An error with the general code `ERR`.
    pub fn err(message: impl std::fmt::Display) -> Self {
        Self::Line(Cow::Owned(format!("ERR {message}")))
    }

    /// A fixed line, code included.
    pub const fn line(line: &'static str) -> Self {
        Self::Line(Cow::Borrowed(line))
    }

    /// As [`Error::line`], where the cluster is the cause.
    pub const fn elsewhere(line: &'static str) -> Self {
        Self::Elsewhere(Cow::Borrowed(line))
    }

    /// A subcommand that exists was called with arguments that it does not take.
    pub fn subcommand(args: &[&[u8]]) -> Self {
        let mut line = b"ERR unknown subcommand or wrong number of arguments for '".to_vec();
        line.extend_from_slice(quoted(args[1], 128));
        line.extend_from_slice(b"'. Try ");
        line.extend_from_slice(&before_nul(args[0]).to_ascii_uppercase());
        line.extend_from_slice(b" HELP.");
        Self::Bytes(line)
    }

    /// The line that the client gets, code included, without the `-`.
    pub fn text(&self) -> Cow<'_, [u8]> {
        let fixed = match self {
            Self::Syntax => "ERR syntax error",
            Self::NotInteger => "ERR value is not an integer or out of range",
            Self::NotFloat => "ERR value is not a valid float",
            Self::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
            Self::NoSuchKey => "ERR no such key",
            Self::IndexOutOfRange => "ERR index out of range",
            Self::OutOfRange => "ERR value is out of range",
            Self::DbOutOfRange => "ERR DB index is out of range",
            Self::SameObject => "ERR source and destination objects are the same",
            Self::StringTooLong => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            Self::OutOfMemory => "OOM command not allowed when used memory > 'maxmemory'.",
            Self::NoAuth => "NOAUTH Authentication required.",
            Self::Later => "TRYAGAIN Keys are on their way to another server",
            Self::InvalidExpire(command) => {
                return Cow::Owned(
                    format!("ERR invalid expire time in '{command}' command").into_bytes(),
                );
            }
            Self::Arity(name) => {
                return Cow::Owned(
                    format!("ERR wrong number of arguments for '{name}' command").into_bytes(),
                );
            }
            Self::Line(line) | Self::Elsewhere(line) => return Cow::Borrowed(line.as_bytes()),
            Self::Bytes(line) => return Cow::Borrowed(line),
        };
        Cow::Borrowed(fixed.as_bytes())
    }

    /// Bytes of a client within an error line: `ERR <before><bytes><after>`.
    pub fn quoting(before: &str, bytes: &[u8], after: &str) -> Self {
        let mut line = format!("ERR {before}").into_bytes();
        line.extend_from_slice(before_nul(bytes));
        line.extend_from_slice(after.as_bytes());
        Self::Bytes(line)
    }
}
