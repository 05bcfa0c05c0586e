use std::io::{self, ErrorKind, Read};

use serde::{Serialize, de::DeserializeOwned};

use super::message::{Event, Hello, Reply, Request, Stream, Welcome};

/// Size of the length prefix in bytes: a little-endian `u32` that does not count itself.
pub const LENGTH_BYTES: usize = 4;

/// Largest frame in bytes, without its prefix. A longer one closes the connection.
pub const MAX_FRAME: usize = 16 << 20;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const ACK: u8 = 3;
const REQUEST: u8 = 4;
const REPLY: u8 = 5;
const EVENT: u8 = 6;
const OUTPUT: u8 = 7;

/// Offset of the sequence number in an event or output frame: after length and kind.
const SEQ_AT: usize = LENGTH_BYTES + 1;

/// A frame from the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentFrame {
    /// Kind 1, JSON: opens the connection.
    Hello(Hello),
    /// Kind 3, a little-endian `u64`: every frame up to this number was handled.
    Ack(u64),
    /// Kind 4, JSON: a command.
    Request(Request),
}

impl AgentFrame {
    /// Appends the whole frame, length prefix included, to `out`.
    ///
    /// # Errors
    /// `InvalidInput` when it is larger than [`MAX_FRAME`].
    pub fn encode(&self, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Hello(hello) => json_frame(out, HELLO, &[], hello),
            Self::Ack(seq) => finish_frame(out, ACK, |out| {
                out.extend_from_slice(&seq.to_le_bytes());
                Ok(())
            }),
            Self::Request(request) => json_frame(out, REQUEST, &[], request),
        }
    }

    /// Reads a frame without its length prefix.
    ///
    /// # Errors
    /// `InvalidData` for an unknown kind or a malformed body.
    pub fn decode(body: &[u8]) -> io::Result<Self> {
        match body.split_first() {
            Some((&HELLO, rest)) => Ok(Self::Hello(json(rest)?)),
            Some((&ACK, rest)) => Ok(Self::Ack(u64::from_le_bytes(rest.try_into().map_err(invalid)?))),
            Some((&REQUEST, rest)) => Ok(Self::Request(json(rest)?)),
            _ => Err(invalid("unknown frame kind")),
        }
    }
}

/// A frame from the runner. Output borrows from the received bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum RunnerFrame<'a> {
    /// Kind 2, JSON: the connection is open.
    Welcome(Welcome),
    /// Kind 5, JSON: the answer to a request. Not numbered; lost with its connection.
    Reply(Reply),
    /// Kind 6, number and JSON: something happened.
    Event {
        /// Its number.
        seq: u64,
        /// What happened.
        event: Event,
    },
    /// Kind 7: number, stream, length of the run id (one byte), run id, data.
    Output {
        /// Its number.
        seq: u64,
        /// The run; empty when the interpreter wrote between two runs.
        run_id: &'a str,
        /// What the data is.
        stream: Stream,
        /// The data; a piece of a byte stream that may end inside a character for stdout and stderr, a whole
        /// item for the other streams.
        data: &'a [u8],
    },
}

impl<'a> RunnerFrame<'a> {
    /// Appends the whole frame, length prefix included, to `out`.
    ///
    /// # Errors
    /// `InvalidInput` when it is larger than [`MAX_FRAME`].
    pub fn encode(&self, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Welcome(welcome) => json_frame(out, WELCOME, &[], welcome),
            Self::Reply(reply) => json_frame(out, REPLY, &[], reply),
            Self::Event { seq, event } => json_frame(out, EVENT, &seq.to_le_bytes(), event),
            Self::Output { seq, run_id, stream, data } => output_frame(out, *seq, run_id, *stream, data),
        }
    }

    /// Reads a frame without its length prefix.
    ///
    /// # Errors
    /// `InvalidData` for an unknown kind or a malformed body.
    pub fn decode(body: &'a [u8]) -> io::Result<Self> {
        match body.split_first() {
            Some((&WELCOME, rest)) => Ok(Self::Welcome(json(rest)?)),
            Some((&REPLY, rest)) => Ok(Self::Reply(json(rest)?)),
            Some((&EVENT, rest)) => {
                let (seq, rest) = split_seq(rest)?;
                Ok(Self::Event { seq, event: json(rest)? })
            }
            Some((&OUTPUT, rest)) => decode_output(rest),
            _ => Err(invalid("unknown frame kind")),
        }
    }
}

/// Appends an output frame to `out`; see [`RunnerFrame::Output`].
///
/// # Errors
/// `InvalidInput` when the run id is longer than 255 bytes or the frame larger than [`MAX_FRAME`].
pub fn output_frame(
    out: &mut Vec<u8>,
    seq: u64,
    run_id: &str,
    stream: Stream,
    data: &[u8],
) -> io::Result<()> {
    let id_len = u8::try_from(run_id.len()).map_err(|_| io::Error::new(ErrorKind::InvalidInput, "run id"))?;
    out.reserve_exact(SEQ_AT + 10 + run_id.len() + data.len());
    finish_frame(out, OUTPUT, |out| {
        out.extend_from_slice(&seq.to_le_bytes());
        out.extend_from_slice(&[stream as u8, id_len]);
        out.extend_from_slice(run_id.as_bytes());
        out.extend_from_slice(data);
        Ok(())
    })
}

/// Writes the number into an encoded event or output frame (prefix included) that was made with another one.
///
/// # Panics
/// When `frame` is shorter than such a frame.
pub fn set_seq(frame: &mut [u8], seq: u64) {
    frame[SEQ_AT..SEQ_AT + 8].copy_from_slice(&seq.to_le_bytes());
}

/// Reads the body of the next frame into `body`. `false` means that the stream ended between two frames.
///
/// # Errors
/// `InvalidData` when the frame is larger than `limit`, `UnexpectedEof` when the stream ends inside it, and
/// those of the reader.
pub fn read_frame(reader: &mut impl Read, limit: usize, body: &mut Vec<u8>) -> io::Result<bool> {
    let mut prefix = [0; LENGTH_BYTES];
    let first = loop {
        match reader.read(&mut prefix) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first == 0 {
        return Ok(false);
    }
    reader.read_exact(&mut prefix[first..])?;
    let length = u32::from_le_bytes(prefix) as usize;
    if length > limit {
        return Err(invalid("frame too large"));
    }
    body.clear();
    // Grown as bytes arrive: a length alone makes nobody allocate.
    if reader.take(length as u64).read_to_end(body)? < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(true)
}

fn decode_output(rest: &[u8]) -> io::Result<RunnerFrame<'_>> {
    let (seq, rest) = split_seq(rest)?;
    let [stream, id_len, rest @ ..] = rest else { return Err(invalid("short output frame")) };
    let (run_id, data) =
        rest.split_at_checked(usize::from(*id_len)).ok_or_else(|| invalid("short run id"))?;
    Ok(RunnerFrame::Output {
        seq,
        run_id: std::str::from_utf8(run_id).map_err(invalid)?,
        stream: Stream::from_u8(*stream).ok_or_else(|| invalid("unknown stream"))?,
        data,
    })
}

fn split_seq(bytes: &[u8]) -> io::Result<(u64, &[u8])> {
    let (seq, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| invalid("short frame"))?;
    Ok((u64::from_le_bytes(*seq), rest))
}

fn json_frame(out: &mut Vec<u8>, kind: u8, head: &[u8], value: &impl Serialize) -> io::Result<()> {
    finish_frame(out, kind, |out| {
        out.extend_from_slice(head);
        serde_json::to_writer(&mut *out, value).map_err(io::Error::from)
    })
}

/// Writes prefix and kind around what `body` appends; leaves `out` as it was on failure.
fn finish_frame(
    out: &mut Vec<u8>,
    kind: u8,
    body: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.push(kind);
    let result = body(out).and_then(|()| {
        let length = out.len() - start - LENGTH_BYTES;
        match u32::try_from(length) {
            Ok(length32) if length <= MAX_FRAME => Ok(length32),
            _ => Err(io::Error::new(ErrorKind::InvalidInput, "frame too large")),
        }
    });
    match result {
        Ok(length) => out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes()),
        Err(e) => {
            out.truncate(start);
            return Err(e);
        }
    }
    Ok(())
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(invalid)
}

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{Command, ReplyBody, Work};

    fn agent_round_trip(frame: &AgentFrame) {
        let mut wire = Vec::new();
        frame.encode(&mut wire).unwrap();
        let mut body = Vec::new();
        let mut reader = wire.as_slice();
        assert!(read_frame(&mut reader, MAX_FRAME, &mut body).unwrap());
        assert_eq!(&AgentFrame::decode(&body).unwrap(), frame);
        assert!(!read_frame(&mut reader, MAX_FRAME, &mut body).unwrap());
    }

    #[test]
    fn agent_frames_survive_the_wire() {
        let hello = Hello { version: 1, token: "t".into(), boot: Some("b".into()), last_seq: Some(9) };
        agent_round_trip(&AgentFrame::Hello(hello));
        agent_round_trip(&AgentFrame::Ack(u64::MAX));
        let work = Work::Query { code: "print(1)".into(), strict_exit: false };
        let command = Command::Execute { run_id: "r".into(), work };
        agent_round_trip(&AgentFrame::Request(Request { id: 3, command }));
    }

    #[test]
    fn runner_frames_survive_the_wire() {
        let frames = [
            RunnerFrame::Reply(Reply { id: 1, body: ReplyBody::Accepted { duplicate: true } }),
            RunnerFrame::Event {
                seq: 4,
                event: Event::Finished { run_id: "r".into(), exit_code: 137, signal: Some(9) },
            },
            RunnerFrame::Output { seq: 5, run_id: "r", stream: Stream::Stderr, data: b"\xff\0raw" },
        ];
        for frame in frames {
            let mut wire = Vec::new();
            frame.encode(&mut wire).unwrap();
            assert_eq!(RunnerFrame::decode(&wire[LENGTH_BYTES..]).unwrap(), frame);
        }
    }

    #[test]
    fn the_number_can_be_set_later() {
        let mut wire = Vec::new();
        output_frame(&mut wire, 0, "run", Stream::Stdout, b"data").unwrap();
        set_seq(&mut wire, 77);
        let expected = RunnerFrame::Output { seq: 77, run_id: "run", stream: Stream::Stdout, data: b"data" };
        assert_eq!(RunnerFrame::decode(&wire[LENGTH_BYTES..]).unwrap(), expected);
    }

    #[test]
    fn lengths_are_checked_before_memory_is_taken() {
        let mut body = Vec::new();
        let huge = u32::MAX.to_le_bytes();
        let error = read_frame(&mut huge.as_slice(), MAX_FRAME, &mut body).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let cut = [8, 0, 0, 0, 3, 1];
        let error = read_frame(&mut cut.as_slice(), MAX_FRAME, &mut body).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        let mut out = vec![1];
        let data = vec![0; MAX_FRAME];
        assert!(output_frame(&mut out, 1, "r", Stream::Stdout, &data).is_err());
        assert_eq!(out, [1]);
    }

    #[test]
    fn a_token_is_never_printed() {
        let hello = Hello { version: 1, token: "secret".into(), boot: None, last_seq: None };
        assert!(!format!("{hello:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body: Vec<u8>) {
            let _ = AgentFrame::decode(&body);
            let _ = RunnerFrame::decode(&body);
        }

        #[test]
        fn output_is_carried_untouched(id in "[a-z0-9-]{0,128}", data: Vec<u8>, seq: u64) {
            let mut wire = Vec::new();
            output_frame(&mut wire, seq, &id, Stream::Stdout, &data).unwrap();
            let expected = RunnerFrame::Output { seq, run_id: &id, stream: Stream::Stdout, data: &data };
            prop_assert_eq!(RunnerFrame::decode(&wire[LENGTH_BYTES..]).unwrap(), expected);
        }
    }
}
