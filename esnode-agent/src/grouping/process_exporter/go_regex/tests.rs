//! Expressions of Go, and what they match there.

use super::GoRegex;

/// What an expression of Go captures in a text, the whole first.
fn captured(regex: &str, text: &str) -> Option<Vec<String>> {
    let regex = GoRegex::new(regex).unwrap_or_else(|error| panic!("{error}"));
    let captures = regex.captures(text)?;
    Some(captures.map(|(_, value)| value.to_owned()).collect())
}

#[test]
fn expressions_mean_what_they_mean_in_go() {
    for (regex, text, whole) in [
        (r"\Qa.b[\E+", "a.b[[", "a.b[["),
        (r"\Qa|b", "xa|b", "a|b"),
        (r"\<a\>", "<a>", "<a>"),
        (r"a{,2}", "aa{,2}", "a{,2}"),
        (r"${x}{2}|\${y", "${y}", "${y"),
        (r"a{2,}", "aaa", "aaa"),
        (r"[a&&b]+", "a&b", "a&b"),
        (r"[[a]+", "x[a", "[a"),
        (r"[]a~~-]+", "]a~-", "]a~-"),
        (r"[^]]+", "a]", "a"),
        (r"[\w\d_-]*", "gw-1_é", "gw-1_"),
        (r"[[:alpha:][:^word:]]+", "ab -1", "ab -"),
        (r"[\x41-\x{43}\101-\103\-]+", "xABC-", "ABC-"),
        (r"\w+", "é1", "1"),
        (r"\bb", "éb", "b"),
        (r"a\B.", "aé ab", "ab"),
        (r"\s", "\u{b}\u{a0} ", " "),
        (r"\S+", " é ", "é"),
        (r"\052\x2A", "**", "**"),
        (r"(?i)É|(?s:.)$", "é", "é"),
        (r"(?U)a+", "aa", "a"),
        (r"[.\n]*", "java", ""),
        (r"a$", "a", "a"),
    ] {
        let captured = captured(regex, text).unwrap_or_else(|| panic!("{regex} on {text}"));
        assert_eq!(captured[0], whole, "{regex} on {text}");
    }
    assert_eq!(captured("a$", "a\n"), None);
    assert_eq!(captured(r"\d", "٣"), None);
}

#[test]
fn groups_keep_their_names() {
    let regex = GoRegex::new(r"(?P<1st>a)(?<b_2>b)?(c)(?:d)").expect("valid");
    let captures: Vec<_> = regex.captures("acd").expect("a match").collect();
    assert_eq!(
        captures,
        [("", "acd"), ("1st", "a"), ("b_2", ""), ("", "c")]
    );
}

#[test]
fn what_go_refuses_or_rust_lacks_is_told() {
    for (regex, problem) in [
        (r"\pL+", "classes of Unicode"),
        (r"[\p{Greek}]", "classes of Unicode"),
        (r"(a)\1", "refers back"),
        (r"(?<!a)b", "is no name of a group"),
        (r"(?P<a>b)(?P<a>c)", "twice"),
        (r"(?x)a b", "(?x has no meaning"),
        (r"\Z", r"\Z has no meaning"),
        (r"a\", "backslash at the end"),
        (r"[a", "[ without ]"),
        (r"[z-a]", "ends before it begins"),
        (r"a(b", "unclosed group"),
        (r"\xZZ", "no character"),
        (r"\x{}", "no character"),
        (r"[[:nothing:]]", "no class [:nothing:]"),
        (r"*.arg1.*", "repetition operator missing expression"),
    ] {
        let error = GoRegex::new(regex).expect_err(regex).to_string();
        assert!(
            error.contains(problem) && error.contains("regular expression"),
            "{error}"
        );
    }
}
