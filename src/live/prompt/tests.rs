//! Prompts: lengths, what copies share, and what was said.

use super::*;
use crate::call::Realms;
use crate::ids::CallId;
use crate::trace::read::{ReadOptions, load_bytes};

const TRACE: &[u8] = include_bytes!("../../../tests/data/two-sessions.jsonl");

fn trace() -> Trace {
    load_bytes("two", TRACE, &ReadOptions::default()).unwrap()
}

fn call(trace: &Trace, run: u32, thread: u32, step: usize) -> Call {
    let step = &trace.sessions[0].threads[thread as usize].steps[step];
    Call {
        id: CallId(0),
        run: RunId(run),
        thread: ThreadId(thread),
        prompt: step.prompt,
        prompt_tokens: step.prompt_tokens,
        output: step.output,
        output_tokens: step.output_tokens,
        output_shared: true,
        realms: Realms {
            head: 0,
            private: run,
        },
        seen: step.seen,
        seen_computed: step.seen_computed,
        again: step.again,
        warm: Tokens::ZERO,
    }
}

fn prompter(trace: &Trace, form: Form, history: History) -> Prompter {
    let words = Vocabulary {
        ids: (100..1000).collect(),
        ..Vocabulary::default()
    };
    let overhead = Overhead {
        base: 9,
        system: 5,
        turn: 8,
        takes_system: true,
    };
    Prompter::new(trace, form, words, overhead, history, 7)
}

fn ids(prompt: Prompt) -> Vec<u32> {
    match prompt {
        Prompt::Ids(ids) => ids,
        Prompt::Messages(_) => panic!("messages"),
    }
}

#[test]
fn ids_have_the_recorded_length_and_hold_what_was_said() {
    let trace = trace();
    let mut prompter = prompter(&trace, Form::Ids, History::Said);
    let (one, two) = (call(&trace, 0, 0, 0), call(&trace, 0, 0, 1));
    let first = ids(prompter.prompt(&one));
    assert_eq!(first.len() as u64, one.prompt_tokens.0);
    let said = Said {
        ids: vec![5; one.output_tokens.0 as usize - 3],
        ..Said::default()
    };
    prompter.heard(&one, &said, None);
    let second = ids(prompter.prompt(&two));
    assert_eq!(second.len() as u64, two.prompt_tokens.0);
    assert_eq!(second[..first.len()], first, "what was sent is sent again");
    let end = first.len() + said.ids.len();
    assert_eq!(second[first.len()..end], said.ids);
    assert!(second[end] >= 100, "what was not said is made up for");
}

#[test]
fn copies_share_their_head_and_nothing_else() {
    let trace = trace();
    let mut prompter = prompter(&trace, Form::Ids, History::Said);
    let one = ids(prompter.prompt(&call(&trace, 0, 0, 0)));
    let two = ids(prompter.prompt(&call(&trace, 1, 0, 0)));
    let common = one.iter().zip(&two).take_while(|(a, b)| a == b).count();
    assert!((2000..2003).contains(&common), "{common} tokens in common");
}

#[test]
fn messages_take_turns_and_come_to_the_recorded_length() {
    let trace = trace();
    let mut prompter = prompter(&trace, Form::Messages, History::Said);
    let (one, two) = (call(&trace, 0, 0, 0), call(&trace, 0, 0, 1));
    // An engine that counts words, and for its template what was measured before.
    let count = |messages: &[(Role, String)]| {
        let words = |text: &str| text.split_whitespace().count().cast_signed() as i64;
        let said: i64 = messages
            .iter()
            .map(|(role, text)| match role {
                Role::Assistant => words(text),
                Role::User | Role::System => words(text) - 1,
            })
            .sum();
        let turns = messages
            .iter()
            .filter(|(role, _)| *role == Role::Assistant)
            .count()
            .cast_signed() as i64;
        9 + 5 + 8 * turns + said
    };
    let Prompt::Messages(first) = prompter.prompt(&one) else {
        panic!("ids")
    };
    assert_eq!(count(&first), one.prompt_tokens.0.cast_signed());
    let said = Said {
        text: " word".repeat(20),
        tokens: Some(20),
        ..Said::default()
    };
    prompter.heard(&one, &said, Some(one.prompt_tokens));
    let Prompt::Messages(second) = prompter.prompt(&two) else {
        panic!("ids")
    };
    let roles: Vec<Role> = second.iter().map(|(role, _)| *role).collect();
    assert_eq!(
        roles,
        [Role::System, Role::User, Role::Assistant, Role::User]
    );
    assert_eq!(second[..2], first[..]);
    assert_eq!(second[2].1, said.text);
    // It said 20 tokens of the 50 that were recorded; what follows makes up for them.
    assert_eq!(count(&second), two.prompt_tokens.0.cast_signed());
}

#[test]
fn an_answer_that_reads_longer_than_recorded_is_cut_where_nothing_else_can_give() {
    let trace = trace();
    let mut prompter = prompter(&trace, Form::Messages, History::Said);
    let (one, two) = (call(&trace, 0, 0, 0), call(&trace, 0, 0, 1));
    prompter.prompt(&one);
    // The answer was recorded with 50 tokens, and nothing that follows it has hundreds to give.
    let said = Said {
        text: " word".repeat(2000),
        tokens: Some(2000),
        ..Said::default()
    };
    prompter.heard(&one, &said, Some(one.prompt_tokens));
    let Prompt::Messages(second) = prompter.prompt(&two) else {
        panic!("ids")
    };
    let words = |text: &str| text.split_whitespace().count() as u64;
    let said: u64 = second.iter().map(|(_, text)| words(text)).sum();
    let template = 9 + 5 + 8;
    let openings = second.len() as u64 - 1;
    assert_eq!(said - openings + template, two.prompt_tokens.0);
    assert!(second[2].1.starts_with(" word word"));
}

#[test]
fn recorded_answers_do_not_depend_on_what_is_said() {
    let trace = trace();
    let prompt = |text: &str| {
        let mut prompter = prompter(&trace, Form::Messages, History::Recorded);
        let one = call(&trace, 0, 0, 0);
        prompter.prompt(&one);
        let said = Said {
            text: text.to_string(),
            ..Said::default()
        };
        prompter.heard(&one, &said, None);
        prompter.prompt(&call(&trace, 0, 0, 1))
    };
    assert_eq!(prompt("this"), prompt("that"));
}
