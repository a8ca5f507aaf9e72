//! The largest memory of this process.

/// Peak resident set in bytes, where the system tells.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_peak_is_read_where_it_is_told() {
        assert_eq!(super::parse("Name:\tx\nVmHWM:\t   2048 kB\n"), Some(2048 * 1024));
        assert_eq!(super::parse("Name:\tx\n"), None);
    }
}
