//! What is accepted and refused, and that nothing takes long or fails on the way.

use proptest::prelude::*;

use super::*;

/// What cel-go says of an expression.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Compiles,
    Refused,
    /// Refused for types that are not followed here.
    RefusedForTypes,
}

/// Verdicts of cel-go 0.27 with the variables and functions that gateways
/// declare, recorded: `ok`, `no` or `types`, then the expression as JSON.
fn recorded() -> Vec<(Verdict, String)> {
    include_str!("../testdata/cel.txt")
        .lines()
        .map(|line| {
            let (verdict, expression) = line.split_once(' ').expect("a verdict and an expression");
            let verdict = match verdict {
                "ok" => Verdict::Compiles,
                "no" => Verdict::Refused,
                "types" => Verdict::RefusedForTypes,
                other => panic!("{other} is no verdict"),
            };
            (verdict, serde_json::from_str(expression).expect("JSON"))
        })
        .collect()
}

#[test]
fn verdicts_are_those_of_cel_go() {
    let recorded = recorded();
    assert!(recorded.len() > 500, "the record is short");
    for (verdict, expression) in recorded {
        let found = check_cel(&expression);
        assert_eq!(found.is_ok(), verdict != Verdict::Refused, "{expression:?}: {verdict:?}, {found:?}");
    }
}

fn refused(expression: &str) -> String {
    let error = check_cel(expression).expect_err(expression);
    assert!(!error.remedy().is_empty());
    format!("{error}; {}", error.remedy())
}

#[test]
fn a_refusal_says_what_and_where() {
    for (expression, words) in [
        ("", "is empty, at line 1, column 1"),
        ("true &&", "ends too early, at line 1, column 8"),
        ("action = 'GET'", "has an unexpected `=`, at line 1, column 8"),
        ("true\n  and false", "has an unexpected `and`, at line 2, column 3"),
        ("'é' == 'a", "has a string that is never closed, at line 1, column 8"),
        (r#"action == "\d""#, r"has an invalid escape `\d`, at line 1, column 11"),
        ("\"\\\n\"", r"has an invalid escape `\\n`, at line 1, column 1"),
        (
            "1 < 9223372036854775808",
            "has the number 9223372036854775808, which is too large, at line 1, column 5",
        ),
        ("user.role == 'admin'", "refers to `user`, which does not exist, at line 1, column 1"),
        (
            "subject.roles.exists(r, true) && r == 1",
            "refers to `r`, which does not exist, at line 1, column 34",
        ),
        ("resource.owner == subject.id", "asks for a field or an element of `resource`, which is a string"),
        ("has(now.hour)", "asks for a field or an element of `now`, which is a timestamp"),
        ("lower(action) == 'get'", "calls `lower`, which does not exist, at line 1, column 1"),
        ("subject.roles.hasAny(['a'])", "calls `hasAny`, which does not exist, at line 1, column 15"),
        (
            "ip_in_range(request.ip)",
            "calls `ip_in_range` with 1 argument(s), at line 1, column 1; call it as ip_in_range(ip, cidr)",
        ),
        (
            "subject.has_role('a')",
            "calls `.has_role` with 1 argument(s), at line 1, column 9; call it as has_role(role)",
        ),
        ("has(subject)", "asks has() for something that is no field, at line 1, column 5"),
        ("[1].all(1, true)", "gives `all` no name for the elements as its first argument"),
        ("[1].all(x)", "gives `all` no name"),
        (
            "[1].all(x, true, true)",
            "calls `.all` with 3 argument(s), at line 1, column 5; call it as list.all(x, condition)",
        ),
        ("if == 1", "uses the reserved word `if` as a name"),
        ("subject.?role == 'a'", "uses `.?`, which gateways do not have"),
        ("Role{name: 'a'}", "builds a message of type `Role`, which does not exist"),
    ] {
        let said = refused(expression);
        assert!(said.contains(words), "{expression:?}: {said}");
    }
}

#[test]
fn messages_stay_short_and_on_one_line() {
    for expression in
        ["x".repeat(90_000), "9".repeat(90_000), format!("{}()", "f".repeat(90_000)), "\u{7}".into()]
    {
        let said = refused(&expression);
        assert!(said.len() < 300 && !said.contains(char::is_control), "{said}");
    }
}

/// The deepest that cel-go compiles, recorded.
#[test]
fn depth_ends_where_cel_go_ends_it() {
    let nested = |open: &str, inside: &str, close: &str, times: usize| {
        format!("{}{inside}{}", open.repeat(times), close.repeat(times))
    };
    let shapes: [(&dyn Fn(usize) -> String, usize); 17] = [
        (&|n| nested("(", "1", ")", n), 249),
        (&|n| nested("[", "1", "]", n), 249),
        (&|n| nested("{1:", "1", "}", n), 249),
        (&|n| nested("", "subject", ".x", n), 250),
        (&|n| nested("", "subject", "[\"x\"]", n), 250),
        (&|n| nested("", "1", "+1", n), 250),
        (&|n| nested("", "1", "*1", n), 250),
        (&|n| nested("", "dyn(1)", "==dyn(1)", n), 250),
        (&|n| nested("true?true:", "true", "", n), 249),
        (&|n| nested("true==(", "true", ")", n), 124),
        (&|n| nested("true&&(", "true", ")", n), 249),
        (&|n| nested("1+(", "1", ")", n), 124),
        (&|n| nested("1*(", "1", ")", n), 124),
        (&|n| nested("1+1*(", "1", ")", n), 83),
        (&|n| format!("[1].all({}, true)", nested("(", "x", ")", n)), 248),
        (&|n| format!("1 + [1].map({}, 1)[0]", nested("(", "x", ")", n)), 247),
        (&|n| format!("{}.protobuf.Any", nested("(", "google", ")", n)), 249),
    ];
    for (shape, most) in shapes {
        assert_eq!(check_cel(&shape(most)), Ok(()), "{}", shape(1));
        assert!(refused(&shape(most + 1)).contains("deeper"), "{}", shape(1));
    }
    // Neither of these adds to the depth.
    for wide in [
        nested("", "true", "&&true", 9_000),
        nested("!", "true", "", 90_000),
        nested("", "[1", ",1", 9_000) + "]",
    ] {
        assert_eq!(check_cel(&wide), Ok(()));
    }
}

#[test]
fn length_counts_characters() {
    let text = |letter: &str, times: usize| format!("'{}'", letter.repeat(times));
    for letter in ["x", "é", "\u{1f600}"] {
        assert_eq!(check_cel(&text(letter, 99_998)), Ok(()));
        assert!(refused(&text(letter, 99_999)).contains("longer than 100000"));
    }
    assert!(refused(&"(".repeat(1 << 20)).contains("longer"));
}

/// What nests, chains or repeats as much as the length allows, on three quarters
/// of the stack that threads have.
#[test]
fn hostile_expressions_end_soon() {
    let pieces = [
        "(",
        "[",
        "{",
        "{1:",
        "a.",
        "a{",
        "a[",
        "!",
        "-",
        "!(",
        "!!(",
        "--(",
        "1+",
        "1*",
        "1<",
        "1?",
        "1?1:",
        "size(",
        "has(",
        "[].map(x,",
        "[].all(x,",
        "[].exists(x, x ||",
        "x.exists(x,",
        "a.b.c.",
        "\"",
        "'''",
        "r\"",
        "b'",
        "\\",
        "`",
        "//",
        "//\n",
        ".",
        ",",
        "0x",
        "1e",
        "google.protobuf.Any{",
        "\u{1f600}",
        "subject.x",
        "subject.x+",
        "subject.x&&",
        "true||",
    ];
    let checked = std::thread::Builder::new()
        .stack_size(3 << 19)
        .spawn(move || {
            let started = std::time::Instant::now();
            for piece in pieces {
                let most = super::LONGEST / piece.chars().count();
                let _ = check_cel(&piece.repeat(most));
                let _ = check_cel(&format!("{}true", piece.repeat(most - 4)));
            }
            started.elapsed()
        })
        .expect("a thread")
        .join()
        .expect("no panic");
    // Each is a few milliseconds; what is not linear would take minutes.
    assert!(checked.as_secs() < 20, "{checked:?}");
}

fn words() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "subject",
        "request",
        "resource",
        "now",
        "x",
        ".roles",
        ".x",
        ".exists(",
        ".map(",
        "has(",
        "size(",
        "ip_in_range(",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "?",
        "!",
        "-",
        "+",
        "*",
        "==",
        "in",
        "&&",
        "||",
        " ",
        "1",
        "1u",
        "0x1f",
        ".5",
        "\"a\"",
        "'",
        "r'",
        "b\"\\n\"",
        "\\",
        "true",
        "null",
        "google.protobuf.Any",
        "é",
        "\n",
        "//",
    ]);
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

fn mutated() -> impl Strategy<Value = String> {
    let originals: Vec<String> = recorded().into_iter().map(|(_, expression)| expression).collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<Option<char>>()), 1..4);
    (prop::sample::select(originals), changes).prop_map(|(original, changes)| {
        let mut characters: Vec<char> = original.chars().collect();
        for (place, character) in changes {
            let place = place.index(characters.len() + 1);
            match character {
                Some(character) => characters.insert(place, character),
                None if place < characters.len() => drop(characters.remove(place)),
                None => {}
            }
        }
        characters.into_iter().collect()
    })
}

/// Expressions without and with brackets around some of their operands.
fn bracketed() -> impl Strategy<Value = (String, String)> {
    let name = prop::sample::select(vec![
        "subject",
        "resource",
        "user",
        "google",
        "google.protobuf",
        "google.protobuf.Any",
        "google.protobuf.Any{}",
        "x",
        "int",
        "'a'",
        "1",
    ]);
    // What `#` and `@` stand for are operands.
    let shape = prop::sample::select(vec![
        "#.x",
        "#.protobuf",
        "#.Any",
        "#['a']",
        "#.size()",
        "has(#.x)",
        "has(#)",
        "size(#)",
        "[#, @]",
        "{#: @}",
        "google.protobuf.Any{x: #}",
        "#.exists(x, @)",
        "#.map(google, @, true)",
        "(# + @)",
        "(# && @)",
        "(! #)",
        "(- #)",
        "(# ? @ : 1)",
    ]);
    let brackets = || prop::sample::select(vec![("", ""), ("(", ")"), ("( (", "))")]);
    let leaf = (name, brackets())
        .prop_map(|(name, (open, close))| (name.to_owned(), format!("{open}{name}{close}")));
    leaf.prop_recursive(5, 24, 2, move |inner| {
        (shape.clone(), inner.clone(), inner, brackets()).prop_map(|(shape, first, second, (open, close))| {
            let filled = |first: &str, second: &str| -> String {
                let part = |c: char| match c {
                    '#' => first.to_owned(),
                    '@' => second.to_owned(),
                    c => c.to_string(),
                };
                shape.chars().map(part).collect()
            };
            (filled(&first.0, &second.0), format!("{open}{}{close}", filled(&first.1, &second.1)))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// cel-go builds the same of an operand with brackets around it and without.
    #[test]
    fn brackets_around_operands_change_no_verdict((without, with) in bracketed()) {
        let problem = |expression: &str| check_cel(expression).map_err(|error| error.problem).err();
        prop_assert_eq!(problem(&without), problem(&with), "{} and {}", without, with);
    }
}

proptest! {
    #[test]
    fn whatever_is_given_is_judged(expression in prop_oneof![any::<String>(), words(), mutated()]) {
        if let Err(error) = check_cel(&expression) {
            let lines: Vec<&str> = expression.split('\n').collect();
            prop_assert!(error.line >= 1 && error.line <= lines.len());
            prop_assert!(error.column >= 1 && error.column <= lines[error.line - 1].chars().count() + 1);
        }
    }

    /// Space and brackets around an expression change nothing.
    #[test]
    fn brackets_change_no_verdict(expression in mutated()) {
        let wrapped = format!("(\n{expression}\n)");
        let alone = check_cel(&expression).map_err(|error| error.problem);
        if alone.is_ok() && expression.len() < 200 {
            prop_assert_eq!(check_cel(&wrapped).map_err(|error| error.problem), Ok(()));
        }
    }
}
