//! Which tests does a file of Go code have, and which cases has each?
//!
//! | in the code | what it is |
//! |---|---|
//! | `func TestX(…)`, `func BenchmarkX(…)` | a test |
//! | `map[string]struct{…}{ "name": {…} }`, `[]struct{…}{ {name: "name"} }` at the top of its body | a table: its cases |
//! | `t.Run("name", …)` at the top of its body | a case |
//! | `for … range []T{A, B} { t.Run(…) }` at the top of its body | the cases `A` and `B` |
//! | `ginkgo.It("text", …)`, `framework.ConformanceIt("text", …)` | a test, with its labels: `text [Conformance]` |
//!
//! This reads tokens, not Go's grammar: enough for how upstream writes its tests. A test that runs cases which are not
//! found is an error, never a test without cases.

use std::iter::Peekable;
use std::str::Chars;

use anyhow::{Result, ensure};

/// A test and the names of its cases, in the order of the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    pub name: String,
    pub cases: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// An identifier, a keyword or a number.
    Word(String),
    Text(String),
    Sign(char),
}

impl Token {
    fn is(&self, sign: char) -> bool {
        *self == Token::Sign(sign)
    }

    fn word(&self) -> Option<&str> {
        if let Token::Word(word) = self { Some(word) } else { None }
    }
}

/// The tests of a file, in its order.
pub fn tests(code: &str) -> Result<Vec<Test>> {
    let tokens = tokens(code);
    let mut tests = Vec::new();
    for at in 0..tokens.len() {
        match &tokens[at..] {
            [Token::Word(func), Token::Word(name), Token::Sign('('), ..] if func == "func" && is_test(name) => {
                let body = body(&tokens[at..]);
                let cases = cases(body);
                let runs_cases = (0..body.len()).any(|at| after(&body[at..], "t.Run(").is_some());
                ensure!(!runs_cases || !cases.is_empty(), "{name} has cases in a form that is not known");
                tests.push(Test { name: name.clone(), cases });
            }
            [Token::Sign('.'), Token::Word(it), Token::Sign('('), Token::Text(text), rest @ ..]
                if matches!(it.as_str(), "It" | "ConformanceIt") =>
            {
                let conformance = if it == "ConformanceIt" { " [Conformance]" } else { "" };
                tests.push(Test { name: format!("{text}{conformance}{}", labels(rest)), cases: Vec::new() });
            }
            _ => {}
        }
    }
    Ok(tests)
}

fn is_test(name: &str) -> bool {
    name != "TestMain" && (name.starts_with("Test") || name.starts_with("Benchmark"))
}

/// What is between a text and the function of its test: `framework.WithSlow()` is the label `[Slow]`.
fn labels(tokens: &[Token]) -> String {
    let mut labels = String::new();
    let arguments = tokens.iter().take_while(|token| token.word() != Some("func")).collect::<Vec<_>>();
    for (at, token) in arguments.iter().enumerate() {
        let Some(label) = token.word().and_then(|word| word.strip_prefix("With")) else { continue };
        let value = arguments[at..].iter().skip(1).take_while(|token| !token.is(')')).filter_map(|token| token.word());
        labels += &match value.last() {
            Some(value) => format!(" [{label}:{value}]"),
            None => format!(" [{label}]"),
        };
    }
    labels
}

/// What is between the braces of a function.
fn body(function: &[Token]) -> &[Token] {
    let parameters = skip(&function[2..]);
    let begin = parameters.iter().position(|token| token.is('{')).unwrap_or(parameters.len());
    inside(&parameters[begin..])
}

/// What follows the pair of brackets that `tokens` begin with, if they do.
fn skip(tokens: &[Token]) -> &[Token] {
    match tokens.first() {
        Some(Token::Sign('{' | '(' | '[')) => &tokens[(inside(tokens).len() + 2).min(tokens.len())..],
        _ => tokens,
    }
}

/// What is between the brackets that `tokens` begin with.
fn inside(tokens: &[Token]) -> &[Token] {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign('{' | '(' | '[') => depth += 1,
            Token::Sign('}' | ')' | ']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return &tokens[1.min(at)..at];
        }
    }
    tokens.get(1..).unwrap_or_default()
}

/// The cases of a test. What is inside a block is no table of the test, but of a case.
fn cases(body: &[Token]) -> Vec<String> {
    let mut cases = Vec::new();
    let mut rest = body;
    while let Some(token) = rest.first() {
        let after_type = after(rest, "map[string]struct").or_else(|| after(rest, "[]struct"));
        if let Some(after_struct) = after_type {
            let table = skip(after_struct);
            if table.first().is_some_and(|token| token.is('{')) {
                cases.extend(names(inside(table)));
            }
            rest = skip(table);
        } else if let Some(elements) = after(rest, "range[]") {
            let list = elements.iter().position(|token| token.is('{')).map_or(&[][..], |at| &elements[at..]);
            let block = skip(list);
            if after(block, "{t.Run(").is_some() {
                cases.extend(
                    elements_of(inside(list))
                        .into_iter()
                        .filter_map(|element| element.iter().rev().find_map(|token| token.word()).map(str::to_owned)),
                );
            }
            rest = skip(block);
        } else if let Some(arguments) = after(rest, "t.Run(") {
            if let Some(Token::Text(name)) = arguments.first() {
                cases.push(name.clone());
            }
            rest = arguments;
        } else if token.is('{') {
            rest = skip(rest);
        } else {
            rest = &rest[1..];
        }
    }
    cases
}

/// What follows these words and signs, if `tokens` begin with them.
fn after<'a>(rest: &'a [Token], expected: &str) -> Option<&'a [Token]> {
    let expected = tokens(expected);
    rest.starts_with(&expected).then(|| &rest[expected.len()..])
}

/// The names of a table's cases: its keys, or the fields that name them, else their numbers.
fn names(table: &[Token]) -> Vec<String> {
    let name = |(n, case): (usize, &[Token])| match case {
        [Token::Text(name), Token::Sign(':'), ..] => name.clone(),
        [Token::Sign('{'), ..] => field(inside(case)).unwrap_or_else(|| format!("#{}", n + 1)),
        _ => format!("#{}", n + 1),
    };
    elements_of(table).into_iter().enumerate().map(name).collect()
}

/// The value of the field that names a case.
fn field(case: &[Token]) -> Option<String> {
    elements_of(case).into_iter().find_map(|field| match field {
        [Token::Word(field), Token::Sign(':'), Token::Text(name)] if field == "name" => Some(name.clone()),
        _ => None,
    })
}

/// What the commas separate, those within brackets aside.
fn elements_of(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0_usize;
    let is_comma = |token: &Token| {
        match token {
            Token::Sign('{' | '(' | '[') => depth += 1,
            Token::Sign('}' | ')' | ']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && token.is(',')
    };
    tokens.split(is_comma).filter(|element| !element.is_empty()).collect()
}

fn tokens(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = code.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '/' if rest.peek() == Some(&'/') => while rest.next().is_some_and(|next| next != '\n') {},
            '/' if rest.peek() == Some(&'*') => {
                let mut last = ' ';
                while rest.next().is_some_and(|next| !(std::mem::replace(&mut last, next) == '*' && next == '/')) {}
            }
            '"' => tokens.push(Token::Text(quoted(&mut rest, '"'))),
            '\'' => tokens.push(Token::Text(quoted(&mut rest, '\''))),
            '`' => tokens.push(Token::Text(rest.by_ref().take_while(|next| *next != '`').collect())),
            _ if next.is_alphanumeric() || next == '_' => {
                let mut word = String::from(next);
                while let Some(next) = rest.next_if(|next| next.is_alphanumeric() || *next == '_') {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
            _ if next.is_whitespace() => {}
            sign => tokens.push(Token::Sign(sign)),
        }
    }
    tokens
}

/// Up to the closing quote. Of the escapes only those that stand for themselves are in names.
fn quoted(rest: &mut Peekable<Chars<'_>>, quote: char) -> String {
    let mut text = String::new();
    while let Some(next) = rest.next().filter(|next| *next != quote) {
        text.extend(if next == '\\' { rest.next() } else { Some(next) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_and_cases(code: &str) -> Vec<(String, Vec<String>)> {
        tests(code).unwrap().into_iter().map(|test| (test.name, test.cases)).collect()
    }

    fn expected(name: &str, cases: &[&str]) -> (String, Vec<String>) {
        (name.to_owned(), cases.iter().copied().map(str::to_owned).collect())
    }

    #[test]
    fn a_table_is_a_map_or_a_list_and_what_is_inside_a_case_is_none() {
        let code = r#"
            func TestMap(t *testing.T) {
                // "not": {}, /* nor this
                cases := map[string]struct { in map[string]string; f func() struct{} }{
                    "one; \"quoted\"": { in: map[string]string{"a": "b"}, list: []struct{ x int }{{1}, {2}} },
                    "two": {},
                }
                for name, tc := range cases { t.Run(name, func(t *testing.T) { x := []struct{ y int }{{1}} }) }
            }
            func TestList(t *testing.T) {
                tests := []struct { name string; at rune }{ { name: "first", at: '{' }, { at: '}' }, }
            }
            func helper() { t.Run("no test of its own", nil) }
        "#;
        assert_eq!(
            names_and_cases(code),
            [expected("TestMap", &["one; \"quoted\"", "two"]), expected("TestList", &["first", "#2"])]
        );
    }

    #[test]
    fn what_is_run_by_name_or_over_a_list_is_a_case() {
        let code = r#"
            func TestPolicies(t *testing.T) {
                for _, policy := range []v1.Propagation{v1.Orphan, v1.Background} {
                    t.Run(string(policy), func(t *testing.T) {})
                }
                t.Run("by name", func(t *testing.T) {})
            }
            func TestMain(m *testing.M) {}
            func BenchmarkLarge(b *testing.B) { b.Run(name, nil) }
        "#;
        assert_eq!(
            names_and_cases(code),
            [expected("TestPolicies", &["Orphan", "Background", "by name"]), expected("BenchmarkLarge", &[])]
        );
    }

    #[test]
    fn cases_that_are_not_found_are_an_error() {
        let error = tests("func TestNew(t *testing.T) { for n := range all() { t.Run(n.name, nil) } }").unwrap_err();
        assert_eq!(error.to_string(), "TestNew has cases in a form that is not known");
    }

    #[test]
    fn a_text_of_ginkgo_has_its_labels() {
        let code = r#"
            ginkgo.It("should run", func(ctx context.Context) { By("It (\"no\")") })
            framework.ConformanceIt("should wait", f.WithSlow(), func(ctx context.Context) {})
            framework.It("should be new",
                framework.WithFeatureGate(features.New), func(ctx context.Context) { f.WithSerial() })
        "#;
        assert_eq!(
            names_and_cases(code),
            [
                expected("should run", &[]),
                expected("should wait [Conformance] [Slow]", &[]),
                expected("should be new [FeatureGate:New]", &[])
            ]
        );
    }
}
