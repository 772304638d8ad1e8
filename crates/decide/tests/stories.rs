//! Stories: one behaviour a file, what happened → what it decided.
//!
//! A story is text. `job` and `at` lines say what happens, the indented lines what is decided, pass after pass,
//! until a pass wants nothing more. A story that has changed fails with the difference; `UPDATE_EXPECT=1 cargo test`
//! accepts it.

mod stored;
mod world;

use std::fs;
use std::path::Path;

use expect_test::expect_file;
use world::World;

#[test]
fn stories() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut files: Vec<_> =
        fs::read_dir(&folder).expect("the stories").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() >= 20, "only {} stories in {}", files.len(), folder.display());
    for file in files {
        let told = fs::read_to_string(&file).expect("a story");
        expect_file![&file].assert_eq(&retell(&told, &file));
    }
}

/// The story with what is decided now.
fn retell(story: &str, file: &Path) -> String {
    let mut world = World::default();
    let mut text = String::new();
    for line in story.lines().filter(|line| !line.starts_with(' ')) {
        text += line;
        text.push('\n');
        let event = line.split('#').next().unwrap_or_default().trim();
        if event.is_empty() {
            continue;
        }
        let decided = world.happen(event).unwrap_or_else(|error| panic!("{}: {line}: {error}", file.display()));
        for plan in decided {
            text += &format!("    -> {plan}\n");
        }
    }
    text
}
