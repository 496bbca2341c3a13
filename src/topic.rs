//! Topic names and topic filters: what is well-formed, and what matches what.

use std::fmt;

/// The longest text that MQTT can carry: its length is a 16-bit number (MQTT 5, section 1.5.4).
pub(crate) const MAX_TEXT: usize = 65_535;

/// The first level of a shared subscription's filter (MQTT 5, section 4.8.2).
const SHARE: &str = "$share";

/// Why a text is not a topic name or not a topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicError {
    /// It has no character [MQTT-4.7.3-1].
    Empty,
    /// It takes more than 65,535 bytes [MQTT-4.7.3-3].
    TooLong,
    /// It holds U+0000 [MQTT-4.7.3-2].
    Nul,
    /// A topic name holds `+` or `#`, which belong into filters only [MQTT-4.7.0-1].
    WildcardInName,
    /// `#` is not alone or is not the last level [MQTT-4.7.1-1].
    MisplacedHash,
    /// `+` does not fill its whole level [MQTT-4.7.1-2].
    MisplacedPlus,
    /// `$share/` is not followed by a name without wildcards, `/` and a filter [MQTT-4.8.2-1/-2].
    BadShare,
}

impl TopicError {
    /// The statement of the standard that forbids this.
    pub fn clause(self) -> &'static str {
        match self {
            Self::Empty => "MQTT-4.7.3-1",
            Self::TooLong => "MQTT-4.7.3-3",
            Self::Nul => "MQTT-4.7.3-2",
            Self::WildcardInName => "MQTT-4.7.0-1",
            Self::MisplacedHash => "MQTT-4.7.1-1",
            Self::MisplacedPlus => "MQTT-4.7.1-2",
            Self::BadShare => "MQTT-4.8.2-2",
        }
    }
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Empty => "is empty",
            Self::TooLong => "is longer than 65535 bytes",
            Self::Nul => "holds U+0000",
            Self::WildcardInName => "is a topic name but holds a wildcard",
            Self::MisplacedHash => "has a # that is not the whole last level",
            Self::MisplacedPlus => "has a + that does not fill its level",
            Self::BadShare => "is not of the form $share/group/filter",
        };
        write!(f, "{text} [{}]", self.clause())
    }
}

impl std::error::Error for TopicError {}

/// Checks that `topic` may be published to.
pub(crate) fn check_topic(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > MAX_TEXT {
        return Err(TopicError::TooLong);
    }
    // `+`, `#` and NUL are ASCII and never part of a longer character. One pass without a branch: it is
    // in the path of every publish.
    let bad = topic
        .bytes()
        .fold(false, |bad, byte| bad | matches!(byte, 0 | b'+' | b'#'));
    if !bad {
        return Ok(());
    }
    Err(if topic.contains('\0') {
        TopicError::Nul
    } else {
        TopicError::WildcardInName
    })
}

/// Checks that `filter` may be subscribed to, `$share/group/filter` included.
pub(crate) fn check_filter(filter: &str) -> Result<(), TopicError> {
    if filter.is_empty() {
        return Err(TopicError::Empty);
    }
    if filter.len() > MAX_TEXT {
        return Err(TopicError::TooLong);
    }
    if filter.bytes().any(|byte| byte == 0) {
        return Err(TopicError::Nul);
    }
    let levels = match filter.strip_prefix(SHARE) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let (group, levels) = rest
                .get(1..)
                .and_then(|rest| rest.split_once('/'))
                .ok_or(TopicError::BadShare)?;
            if group.is_empty() || group.contains(['+', '#']) || levels.is_empty() {
                return Err(TopicError::BadShare);
            }
            levels
        }
        Some(_) | None => filter,
    };
    let mut rest = Some(levels);
    while let Some(text) = rest {
        let (level, tail) = match text.split_once('/') {
            Some((level, tail)) => (level, Some(tail)),
            None => (text, None),
        };
        if level.contains('#') && (level != "#" || tail.is_some()) {
            return Err(TopicError::MisplacedHash);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::MisplacedPlus);
        }
        rest = tail;
    }
    Ok(())
}

/// Whether `filter` names a shared subscription.
pub(crate) fn is_shared(filter: &str) -> bool {
    matching_part(filter).len() != filter.len()
}

/// Whether `filter` holds a wildcard.
pub(crate) fn has_wildcard(filter: &str) -> bool {
    matching_part(filter).contains(['+', '#'])
}

/// The part of a filter that topics are compared with: `f` of `$share/group/f`.
pub(crate) fn matching_part(filter: &str) -> &str {
    filter
        .strip_prefix("$share/")
        .and_then(|rest| rest.split_once('/'))
        .map_or(filter, |(_group, levels)| levels)
}

/// Whether a message to `topic` belongs to `filter` (MQTT 5, section 4.7).
///
/// `$share/group/filter` matches by its last part. A filter that begins with a wildcard does not
/// match a topic that begins with `$` [MQTT-4.7.2-1]. Nothing is normalised [MQTT-4.7.3-4].
///
/// ```
/// assert!(coracle::matches("house/+/temp", "house/hall/temp"));
/// assert!(coracle::matches("house/#", "house"));
/// assert!(!coracle::matches("#", "$SYS/uptime"));
/// ```
pub fn matches(filter: &str, topic: &str) -> bool {
    let filter = matching_part(filter);
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            Some(_) | None => return false,
        }
    }
    levels.next().is_none()
}

/// Whether there may be a topic that belongs to both filters. Topics that begin with `$` are taken like
/// any other.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    let mut others = matching_part(other).split('/');
    let mut ones = matching_part(one).split('/');
    loop {
        match (ones.next(), others.next()) {
            // `#` stands for what is above it, too.
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(one), Some(other)) if one == other || one == "+" || other == "+" => {}
            (Some(_), Some(_)) | (Some(_), None) | (None, Some(_)) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_overlap_if_some_topic_belongs_to_both() {
        // All filters and topics of few levels.
        let levels = ["a", "b", "+", "#"];
        let mut all: Vec<String> = vec![String::new()];
        let mut filters = Vec::new();
        for _ in 0..3 {
            let longer = all.iter().flat_map(|head| {
                let slash = if head.is_empty() { "" } else { "/" };
                levels.map(|level| format!("{head}{slash}{level}"))
            });
            all = longer
                .filter(|filter| check_filter(filter).is_ok())
                .collect();
            filters.extend(all.iter().cloned());
        }
        let topics: Vec<_> = filters
            .iter()
            .filter(|filter| !has_wildcard(filter))
            .collect();
        for one in &filters {
            for other in &filters {
                let both = |topic: &&String| matches(one, topic) && matches(other, topic);
                let expected = topics.iter().any(both);
                assert_eq!(overlap(one, other), expected, "{one} {other}");
            }
        }
        assert!(overlap("$share/g/a", "$share/h/a"));
        assert!(!overlap("$share/g/a", "$share/g/b"));
    }

    #[test]
    fn topic_names_are_checked() {
        assert_eq!(check_topic("a/b"), Ok(()));
        assert_eq!(check_topic("/"), Ok(()));
        assert_eq!(check_topic(""), Err(TopicError::Empty));
        assert_eq!(check_topic("a/+"), Err(TopicError::WildcardInName));
        assert_eq!(check_topic("a#"), Err(TopicError::WildcardInName));
        assert_eq!(check_topic("a\0"), Err(TopicError::Nul));
        assert_eq!(check_topic(&"x".repeat(65_535)), Ok(()));
        assert_eq!(check_topic(&"x".repeat(65_536)), Err(TopicError::TooLong));
    }

    #[test]
    fn filters_are_checked() {
        for good in [
            "#",
            "+",
            "a/#",
            "+/a/+",
            "/",
            "//",
            "$share/g/a/+",
            "$shared/x",
            "$SYS/#",
        ] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", TopicError::Empty),
            ("a#", TopicError::MisplacedHash),
            ("#/a", TopicError::MisplacedHash),
            ("a/b+", TopicError::MisplacedPlus),
            ("a\0", TopicError::Nul),
            ("a/#b", TopicError::MisplacedHash),
            ("a/#/b", TopicError::MisplacedHash),
            ("+a", TopicError::MisplacedPlus),
            ("++/b", TopicError::MisplacedPlus),
            ("$share/g/a#", TopicError::MisplacedHash),
            ("$share/g#/a", TopicError::BadShare),
            ("$share", TopicError::BadShare),
            ("$share/", TopicError::BadShare),
            ("$share/g", TopicError::BadShare),
            ("$share/g/", TopicError::BadShare),
            ("$share//a", TopicError::BadShare),
            ("$share/g+/a", TopicError::BadShare),
        ] {
            assert_eq!(check_filter(bad), Err(why), "{bad}");
        }
        assert_eq!(check_filter(&"x".repeat(65_535)), Ok(()));
        assert_eq!(check_filter(&"x".repeat(65_536)), Err(TopicError::TooLong));
    }

    #[test]
    fn filters_match_as_in_section_4_7() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/a", false),
            ("+/a", "$SYS/a", false),
            ("$SYS/#", "$SYS/a", true),
            ("$SYS/+", "$SYS/a", true),
            ("a//b", "a//b", true),
            ("a/b", "a//b", false),
            ("$share/g/a/+", "a/b", true),
            ("$share/g/#", "$SYS/a", false),
            ("A", "a", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }
}
