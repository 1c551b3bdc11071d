//! Finding one's way in JSON text without parsing it.

/// Whether arrays and objects nest deeper than `limit`.
pub(super) fn deeper_than(json: &[u8], limit: usize) -> bool {
    let mut depth = 0_usize;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'"' => return,
            _ => {}
        }
    }
}

/// One array or object around the place being looked for.
enum Frame {
    Array(usize),
    Object { key: Option<String>, after_colon: bool },
}

/// The JSON pointer (RFC 6901) of the value that ends at or spans the given place, both counted
/// from 1 as `serde_json` does. The text must be well-formed up to there.
pub(super) fn at(json: &[u8], line: usize, column: usize) -> String {
    let start: usize =
        json.split_inclusive(|byte| *byte == b'\n').take(line.max(1) - 1).map(<[u8]>::len).sum();
    let end = (start + column).min(json.len());
    let mut frames: Vec<Frame> = Vec::new();
    let mut index = 0;
    while index < end {
        match json[index] {
            b'"' => {
                let mut rest = json[index + 1..].iter();
                skip_string(&mut rest);
                let close = json.len() - rest.len();
                if let Some(Frame::Object { key, after_colon: false }) = frames.last_mut() {
                    *key = serde_json::from_slice(&json[index..close]).ok();
                }
                index = close;
                continue;
            }
            b'{' => frames.push(Frame::Object { key: None, after_colon: false }),
            b'[' => frames.push(Frame::Array(0)),
            // The parser reports what an object or array as a whole lacks at its last byte.
            b'}' | b']' if index + 1 < end => {
                frames.pop();
            }
            b'}' => {
                if let Some(Frame::Object { key, .. }) = frames.last_mut() {
                    *key = None;
                }
            }
            b':' => {
                if let Some(Frame::Object { after_colon, .. }) = frames.last_mut() {
                    *after_colon = true;
                }
            }
            b',' if index + 1 < end => match frames.last_mut() {
                Some(Frame::Array(position)) => *position += 1,
                Some(Frame::Object { key, after_colon }) => {
                    *key = None;
                    *after_colon = false;
                }
                None => {}
            },
            _ => {}
        }
        index += 1;
    }
    frames.iter().filter_map(Frame::step).fold(String::new(), |path, step| path + "/" + &step)
}

impl Frame {
    fn step(&self) -> Option<String> {
        match self {
            Frame::Array(position) => Some(position.to_string()),
            Frame::Object { key, .. } => {
                key.as_ref().map(|key| key.replace('~', "~0").replace('/', "~1"))
            }
        }
    }
}
