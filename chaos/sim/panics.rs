//! Panics of what is played. The product's own code runs here, and a panic of it is a
//! finding as a broken promise is: the run ends with its words and its place, and whoever
//! plays still knows which scenario it was.
//!
//! Where a panic was is told to the process's hook alone. Ours comes before the one that
//! was there and looks only at threads that play: it takes down the place, and lets the
//! other print when somebody listens to the run. To make a scenario small it is played
//! some hundred times, and the same words as often would help nobody.
//!
//! What ends the process at once, as a full stack does, cannot be caught.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

/// A panic that was caught.
#[derive(Debug, PartialEq, Eq)]
pub struct Panic {
    /// What it said, in one line.
    pub words: String,
    /// File, line and column.
    pub place: String,
}

/// A run on a thread.
struct Playing {
    /// Whether its panics are printed.
    aloud: bool,
    /// Where its last one was.
    place: Option<String>,
}

thread_local! {
    /// What this thread plays, if it does.
    static PLAYING: RefCell<Option<Playing>> = const { RefCell::new(None) };
}

/// Plays, and catches a panic. It is printed only when `aloud`.
pub fn catch<T>(aloud: bool, play: impl FnOnce() -> T) -> Result<T, Panic> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let other = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if note(info) {
                other(info);
            }
        }));
    });
    let before = PLAYING.replace(Some(Playing { aloud, place: None }));
    // What was played may be in disorder after a panic: only what is counted is read then.
    let played = panic::catch_unwind(AssertUnwindSafe(play));
    let place = PLAYING.replace(before).and_then(|playing| playing.place);
    played.map_err(|payload| Panic {
        words: words(payload.as_ref()),
        place: place.unwrap_or_else(|| "an unknown place".to_owned()),
    })
}

/// Takes down where a panic was, if this thread plays. Returns whether it is to be printed.
fn note(info: &PanicHookInfo<'_>) -> bool {
    // A thread that ends has nothing to look at any more.
    let printed = PLAYING.try_with(|playing| {
        let mut playing = playing.borrow_mut();
        let Some(playing) = playing.as_mut() else { return true };
        playing.place = info.location().map(ToString::to_string);
        playing.aloud
    });
    printed.unwrap_or(true)
}

fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("without words");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_says_what_and_where() {
        let number = std::hint::black_box(3);
        let caught = catch(false, || assert_eq!(number, 4, "not {}", 4)).unwrap_err();
        assert_eq!(caught.words, "assertion `left == right` failed: not 4 left: 3 right: 4");
        let line = line!() - 2;
        assert!(caught.place.contains(&format!("panics.rs:{line}:")), "{}", caught.place);
        assert_eq!(catch(false, || number), Ok(3));
    }

    #[test]
    fn runs_within_runs_keep_their_places() {
        let outer = catch(false, || {
            let inner = catch(false, || panic!("within")).map_err(|caught| caught.place);
            panic!("around one at {}", inner.unwrap_err())
        });
        let outer = outer.map(|()| String::new()).unwrap_err();
        assert!(
            outer.words.starts_with("around one at ") && !outer.words.contains(&outer.place),
            "{outer:?}"
        );
    }
}
