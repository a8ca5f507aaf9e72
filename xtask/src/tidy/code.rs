//! Rust text without its comments and literals, so that rules look at code only.

/// Blanks comments and the insides of string and character literals; keeps every line break.
pub(crate) fn only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let end = match literal_end(&chars, i) {
            Some(end) => end,
            None => {
                out.push(chars[i]);
                i += 1;
                continue;
            }
        };
        out.extend(chars[i..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        i = end;
    }
    out
}

/// Where the comment or literal that begins at `i` ends, if one begins there.
fn literal_end(chars: &[char], i: usize) -> Option<usize> {
    let at = |k: usize| chars.get(k).copied().unwrap_or('\0');
    let find =
        |from: usize, stop: &dyn Fn(usize) -> bool| (from..chars.len()).find(|k| stop(*k)).unwrap_or(chars.len());
    match at(i) {
        '/' if at(i + 1) == '/' => Some(find(i, &|k| chars[k] == '\n')),
        '/' if at(i + 1) == '*' => Some((find(i + 2, &|k| chars[k] == '*' && at(k + 1) == '/') + 2).min(chars.len())),
        '"' => Some(quoted_end(chars, i + 1, '"')),
        'r' if !is_word(at(i.wrapping_sub(1))) || at(i.wrapping_sub(1)) == 'b' => {
            let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
            let open = i + 1 + hashes;
            let closes = |k: usize| chars[k] == '"' && (1..=hashes).all(|h| at(k + h) == '#');
            (at(open) == '"').then(|| (find(open + 1, &closes) + 1 + hashes).min(chars.len()))
        }
        // A character, not a lifetime: 'x' or an escape.
        '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => Some(quoted_end(chars, i + 1, '\'')),
        _ => None,
    }
}

fn quoted_end(chars: &[char], mut i: usize, quote: char) -> usize {
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Byte positions in `line` where `word` stands alone (a whole path such as `std::fs` counts as one word).
pub(crate) fn words<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    line.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = line[..*at].chars().next_back().unwrap_or(' ');
        let after = line[at + word.len()..].chars().next().unwrap_or(' ');
        let open_end = word.ends_with(['!', ':']);
        !is_word(before) && (open_end || !is_word(after))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        let text = "let a = \"dbg!\"; // unsafe\n/* x\ny */ let c = '\"'; let s: &'a str = r#\"un\"safe\"#; done";
        let code = only(text);
        assert_eq!(code.lines().count(), text.lines().count());
        assert!(!code.contains("dbg") && !code.contains("safe") && !code.contains('y'));
        assert!(code.contains("&'a str") && code.ends_with("; done"));
    }

    #[test]
    fn a_word_is_found_only_whole() {
        assert_eq!(words("faer::Mat, notfaer, faer2", "faer").collect::<Vec<_>>(), [0]);
        assert_eq!(words("eprintln!(x) println!(y)", "println!").collect::<Vec<_>>(), [13]);
        assert!(words("unsafe_code", "unsafe").next().is_none());
    }
}
