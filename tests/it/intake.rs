//! Calls that take time to get to the engine, in proportion to their prompts.

use crate::predictions::{cost, vllm};
use laptime::call::{Call, Outcome, Reply};
use laptime::ids::CallId;
use laptime::rig::Backend;
use laptime::rig::engine::vllm::Vllm;
use laptime::rig::intake::Intake;
use laptime::rig::step::StepLoop;
use laptime::study::calibrate::schedule::{Size, calls};
use laptime::units::{Span, Time};

const SIZE: Size = Size {
    prompt: 1000,
    output: 10,
};
/// What a prompt of 1000 tokens takes to be taken in.
const MILLISECOND: Span = Span(1_000_000);

fn rig(sizes: &[Size], token_s: f64) -> (Intake, Vec<Call>) {
    let (calls, content) = calls(sizes);
    let engine = StepLoop::new(<Vllm>::new(vllm(), content), cost());
    (Intake::new(Box::new(engine), token_s), calls)
}

/// Answers calls made at these milliseconds by a server that takes so many seconds to take in a token.
fn answered(token_s: f64, at_ms: &[u64]) -> Vec<Reply> {
    answered_of(&vec![SIZE; at_ms.len()], token_s, at_ms)
}

fn answered_of(sizes: &[Size], token_s: f64, at_ms: &[u64]) -> Vec<Reply> {
    let (mut rig, calls) = rig(sizes, token_s);
    let mut replies = Vec::new();
    for (call, at) in calls.into_iter().zip(at_ms) {
        let at = Time(at * 1_000_000);
        while let Some(next) = rig.next_event().filter(|next| *next < at) {
            rig.advance(next, &mut replies);
        }
        rig.advance(at, &mut replies);
        rig.submit(at, call);
    }
    while let Some(next) = rig.next_event() {
        rig.advance(next, &mut replies);
    }
    replies
}

#[test]
fn a_call_ends_as_much_later_as_its_prompt_takes_to_be_taken_in() {
    let (at_once, later) = (answered(0.0, &[5]), answered(1e-6, &[5]));
    let (at_once, later) = (&at_once[0], &later[0]);
    assert_eq!(later.submitted, at_once.submitted);
    assert_eq!(later.finished, at_once.finished + MILLISECOND);
    assert_eq!(later.parts.queue, at_once.parts.queue + MILLISECOND);
    assert_eq!(later.parts.total(), later.finished - later.submitted);
    let overhead = |reply: &Reply| reply.bound.map(|bound| bound.overhead);
    assert_eq!(
        overhead(later),
        overhead(at_once).map(|own| own + MILLISECOND)
    );
}

#[test]
fn nobody_else_waits_for_it() {
    // Everything happens a millisecond later, what the first calls do while the others are taken in as well.
    let at = [0, 200, 201, 290];
    let (at_once, later) = (answered(0.0, &at), answered(1e-6, &at));
    assert_eq!(at_once.len(), later.len());
    for (at_once, later) in at_once.iter().zip(&later) {
        assert_eq!(later.call, at_once.call);
        assert_eq!(later.finished, at_once.finished + MILLISECOND);
    }
}

#[test]
fn prompts_are_taken_in_beside_each_other() {
    let long = Size {
        prompt: 5000,
        ..SIZE
    };
    let together = answered_of(&[long, SIZE], 1e-6, &[0, 0]);
    let short = together.iter().find(|reply| reply.call == CallId(1));
    let alone = answered(1e-6, &[0]);
    let first = short.and_then(|reply| reply.first_token);
    assert_eq!(first, alone[0].first_token);
}

#[test]
fn a_caller_may_go_before_the_engine_knows_of_the_call() {
    let (mut rig, calls) = rig(&[SIZE], 1e-3);
    rig.submit(Time(7), calls[0]);
    rig.open()
        .expect("vLLM takes calls from outside")
        .give_up(Time(1007), CallId(0));
    let mut replies = Vec::new();
    let next = rig.next_event().expect("the caller is told");
    rig.advance(next, &mut replies);
    let gone = replies.first().expect("the call has ended");
    assert_eq!(gone.outcome, Outcome::Unavailable);
    assert_eq!((gone.submitted, gone.finished), (Time(7), Time(1007)));
    assert_eq!(gone.parts.total(), Span(1000));
    assert_eq!(rig.next_event(), None);
}
