/// Decodes UTF-8 that comes in pieces; what is not UTF-8 becomes U+FFFD.
#[derive(Debug, Default)]
pub(super) struct Utf8Decoder {
    /// The beginning of a character whose end has not come yet: at most three bytes.
    partial: Vec<u8>,
}

impl Utf8Decoder {
    /// Appends the text of the next piece to `out`.
    pub(super) fn push(&mut self, data: &[u8], out: &mut String) {
        if self.partial.is_empty() {
            return self.decode(data, out);
        }
        let mut joined = std::mem::take(&mut self.partial);
        joined.extend_from_slice(data);
        self.decode(&joined, out);
    }

    /// The end of the stream: an unfinished character is replaced.
    pub(super) fn finish(&mut self, out: &mut String) {
        if !std::mem::take(&mut self.partial).is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }

    fn decode(&mut self, mut data: &[u8], out: &mut String) {
        loop {
            match std::str::from_utf8(data) {
                Ok(text) => return out.push_str(text),
                Err(error) => {
                    let (valid, rest) = data.split_at(error.valid_up_to());
                    out.push_str(&String::from_utf8_lossy(valid));
                    let Some(bad) = error.error_len() else {
                        self.partial = rest.to_vec();
                        return;
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    data = &rest[bad..];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_read_like_the_whole(data: Vec<u8>, cuts in proptest::collection::vec(0_usize..64, 0..8)) {
            let (mut decoder, mut text, mut rest) = (Utf8Decoder::default(), String::new(), data.as_slice());
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                decoder.push(piece, &mut text);
                rest = tail;
            }
            decoder.push(rest, &mut text);
            decoder.finish(&mut text);
            prop_assert_eq!(text, String::from_utf8_lossy(&data));
        }

        #[test]
        fn characters_survive_any_cut(input in "\\PC{0,40}", cut in 0_usize..160) {
            let (mut decoder, mut text) = (Utf8Decoder::default(), String::new());
            let (first, second) = input.as_bytes().split_at(cut.min(input.len()));
            decoder.push(first, &mut text);
            decoder.push(second, &mut text);
            decoder.finish(&mut text);
            prop_assert_eq!(text, input);
        }
    }
}
