use std::collections::VecDeque;

use bai_core::execution::{ConsoleItem, RunStatus};
use bai_kernel_lib::protocol::{Stream, media_parts};

use super::decode::Utf8Decoder;

/// Longest single record of output in bytes.
const RECORD_LIMIT: usize = 10 << 20;
const TRUNCATED: &str = "\n[output truncated: a single record was longer than 10 MiB]\n";

/// Output of a run that nobody has taken yet, with the ends of batch steps in their places.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    entries: VecDeque<Entry>,
    bytes: usize,
    stdout: Utf8Decoder,
    stderr: Utf8Decoder,
}

#[derive(Debug)]
enum Entry {
    Item(ConsoleItem),
    Step(RunStatus, i32),
}

impl Buffer {
    /// Bytes of text waiting.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the end of a batch step waits.
    pub(super) fn has_step(&self) -> bool {
        self.entries.iter().any(|entry| matches!(entry, Entry::Step(..)))
    }

    /// Adds the data of an output frame.
    pub(super) fn push(&mut self, stream: Stream, data: &[u8]) {
        let (data, cut) =
            if data.len() > RECORD_LIMIT { (&data[..RECORD_LIMIT], true) } else { (data, false) };
        let mut text = String::new();
        match stream {
            Stream::Stdout => self.stdout.push(data, &mut text),
            Stream::Stderr => self.stderr.push(data, &mut text),
            Stream::Media if !cut => {
                if let Some((mime, data)) = media_parts(data) {
                    self.add(ConsoleItem::Media(mime.to_owned(), data.to_owned()), data.len());
                }
                return;
            }
            Stream::Media => text.push_str("[media left out: it was larger than 10 MiB]\n"),
            Stream::Html | Stream::Log => text = String::from_utf8_lossy(data).into_owned(),
        }
        if cut {
            text.push_str(TRUNCATED);
        }
        self.text(stream, text);
    }

    /// Adds text to the end of a stream.
    pub(super) fn text(&mut self, stream: Stream, text: String) {
        if text.is_empty() {
            return;
        }
        let added = text.len();
        match (stream, self.entries.back_mut()) {
            (Stream::Stdout, Some(Entry::Item(ConsoleItem::Stdout(last))))
            | (Stream::Stderr, Some(Entry::Item(ConsoleItem::Stderr(last)))) => {
                last.push_str(&text);
                self.bytes += added;
            }
            (Stream::Stdout, _) => self.add(ConsoleItem::Stdout(text), added),
            (Stream::Stderr | Stream::Media, _) => self.add(ConsoleItem::Stderr(text), added),
            (Stream::Html, _) => self.add(ConsoleItem::Html(text), added),
            (Stream::Log, _) => self.add(ConsoleItem::Log(text), added),
        }
    }

    fn add(&mut self, item: ConsoleItem, bytes: usize) {
        self.entries.push_back(Entry::Item(item));
        self.bytes += bytes;
    }

    /// Ends the byte streams: characters cut short are replaced.
    pub(super) fn flush(&mut self) {
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout.finish(&mut out);
        self.stderr.finish(&mut err);
        self.text(Stream::Stdout, out);
        self.text(Stream::Stderr, err);
    }

    /// Marks the end of a batch step.
    pub(super) fn step(&mut self, status: RunStatus, exit_code: i32) {
        self.flush();
        self.entries.push_back(Entry::Step(status, exit_code));
    }

    /// Takes the output up to the end of a step, which is returned, or all of it.
    pub(super) fn take(&mut self) -> (Vec<ConsoleItem>, Option<(RunStatus, i32)>) {
        let mut items = Vec::new();
        while let Some(entry) = self.entries.pop_front() {
            match entry {
                Entry::Item(item) => {
                    self.bytes = self.bytes.saturating_sub(item_bytes(&item));
                    items.push(item);
                }
                Entry::Step(status, exit_code) => return (items, Some((status, exit_code))),
            }
        }
        (items, None)
    }

    /// Gives up the newest output beyond `limit` bytes. Ends of steps stay.
    pub(super) fn cut(&mut self, limit: usize) {
        let mut kept = 0;
        for entry in &mut self.entries {
            let Entry::Item(item) = entry else { continue };
            let room = limit.saturating_sub(kept);
            if let ConsoleItem::Stdout(text) | ConsoleItem::Stderr(text) = item {
                text.truncate(text.floor_char_boundary(room));
            } else if item_bytes(item) > room {
                *item = ConsoleItem::Stdout(String::new());
            }
            kept += item_bytes(item);
        }
        self.entries.retain(|entry| !matches!(entry, Entry::Item(item) if item_bytes(item) == 0));
        self.bytes = kept;
    }
}

/// Bytes of text in an item.
pub(super) fn item_bytes(item: &ConsoleItem) -> usize {
    match item {
        ConsoleItem::Stdout(text)
        | ConsoleItem::Stderr(text)
        | ConsoleItem::Html(text)
        | ConsoleItem::Log(text) => text.len(),
        ConsoleItem::Media(_, data) => data.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_merged_and_steps_divide() {
        let mut buffer = Buffer::default();
        buffer.push(Stream::Stdout, b"a");
        buffer.push(Stream::Stdout, b"b\xe2\x82");
        buffer.push(Stream::Stderr, b"!");
        buffer.push(Stream::Stdout, b"\xac");
        buffer.push(Stream::Media, b"text/x\0data");
        buffer.step(RunStatus::BuildFinished, 3);
        buffer.push(Stream::Stdout, b"c\xff");
        assert_eq!(buffer.bytes(), 2 + 1 + 3 + 4 + 4);
        let (items, step) = buffer.take();
        let text = |text: &str| ConsoleItem::Stdout(text.into());
        let media = ConsoleItem::Media("text/x".into(), "data".into());
        assert_eq!(items, [text("ab"), ConsoleItem::Stderr("!".into()), text("€"), media]);
        assert_eq!(step, Some((RunStatus::BuildFinished, 3)));
        assert_eq!(buffer.take(), (vec![text("c\u{fffd}")], None));
        assert_eq!(buffer.bytes(), 0);
    }

    #[test]
    fn overlong_records_are_cut_with_a_marker() {
        let mut buffer = Buffer::default();
        buffer.push(Stream::Stdout, &vec![b'x'; RECORD_LIMIT + 5]);
        let (items, _) = buffer.take();
        let [ConsoleItem::Stdout(text)] = items.as_slice() else { panic!("{}", items.len()) };
        assert!(text.ends_with(TRUNCATED) && text.len() == RECORD_LIMIT + TRUNCATED.len());
    }

    #[test]
    fn what_is_given_up_leaves_whole_characters_and_the_steps() {
        let mut buffer = Buffer::default();
        buffer.push(Stream::Stdout, "äöü".as_bytes());
        buffer.push(Stream::Stderr, b"error");
        buffer.step(RunStatus::CleanFinished, 0);
        buffer.cut(3);
        assert_eq!(buffer.bytes(), 2 + 1);
        let (items, step) = buffer.take();
        assert_eq!(items, [ConsoleItem::Stdout("ä".into()), ConsoleItem::Stderr("e".into())]);
        assert!(step.is_some());
    }
}
