//! Numbers and names for people.

/// `text` with the characters that HTML gives a meaning replaced.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// A whole number with thousands separated: `1,234,567`.
///
/// ```
/// assert_eq!(subspan_report::count(1234567), "1,234,567");
/// ```
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// A number with `digits` significant digits, in plain notation where that is short.
///
/// ```
/// use subspan_report::significant;
/// assert_eq!(significant(0.0123456, 3), "0.0123");
/// assert_eq!(significant(1234.56, 3), "1,235");
/// assert_eq!(significant(1.0e-9, 3), "1.00e-9");
/// assert_eq!(significant(-2.5, 2), "-2.5");
/// ```
pub fn significant(v: f64, digits: usize) -> String {
    if v == 0.0 {
        return "0".into();
    }
    if !v.is_finite() {
        return v.to_string();
    }
    let magnitude = v.abs().log10().floor() as i32;
    if !(-4..15).contains(&magnitude) {
        return format!("{v:.*e}", digits.saturating_sub(1));
    }
    let decimals = (digits as i32 - 1 - magnitude).max(0) as usize;
    let plain = format!("{:.*}", decimals, v.abs());
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let whole = whole.parse().map_or_else(|_| whole.to_string(), count);
    let sign = if v < 0.0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// A share as a percentage with two significant digits.
///
/// ```
/// assert_eq!(subspan_report::percent(0.0123), "1.2 %");
/// ```
pub fn percent(share: f64) -> String {
    format!("{} %", significant(100.0 * share, 2))
}

/// Seconds for people.
///
/// ```
/// use subspan_report::duration;
/// assert_eq!(duration(0.0123), "12 ms");
/// assert_eq!(duration(3.21), "3.2 s");
/// assert_eq!(duration(125.0), "2 min 05 s");
/// ```
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.1} ms", 1e3 * s),
        s if s < 0.9995 => format!("{:.0} ms", 1e3 * s),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 99.5 => format!("{s:.0} s"),
        s => format!("{} min {:02} s", (s / 60.0) as u64, (s % 60.0) as u64),
    }
}

/// A bytes figure for people.
pub(crate) fn bytes(n: u64) -> String {
    const MIB: f64 = 1_048_576.0;
    match n as f64 / MIB {
        m if m < 1024.0 => format!("{m:.0} MiB"),
        m => format!("{:.1} GiB", m / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_names_stays_text() {
        assert_eq!(escape("<b>'a' & \"c\""), "&lt;b&gt;&#39;a&#39; &amp; &quot;c&quot;");
    }

    #[test]
    fn numbers_round_without_losing_their_size() {
        assert_eq!(significant(999.96, 3), "1,000");
        assert_eq!(significant(-1234567.0, 3), "-1,234,567");
        assert_eq!(significant(0.1, 2), "0.10");
        assert_eq!(count(0), "0");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }
}
