//! What has to be known of an engine before a replay: what words cost there, and what its template adds to them.
//!
//! Some calls of one token each are the warm-up as well: they are made before the clock starts and are in no figure.

use super::client::Client;
use super::clock::Clock;
use super::measured::Measured;
use super::prompt::{Form, Overhead, Prompt, Role};
use super::words::{OPENING, Vocabulary};

/// What was found out.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// How prompts will be put.
    pub form: Form,
    /// What content is made of.
    pub vocabulary: Vocabulary,
    /// What the template adds.
    pub overhead: Overhead,
    /// How many calls that took.
    pub calls: u32,
    /// What a reader of the result should know.
    pub notes: Vec<String>,
}

/// Finds out what prompts of `client` are to be made of; `form` is nothing where the best is wanted.
pub async fn prepare(
    client: &Client,
    clock: Clock,
    form: Option<Form>,
) -> Result<Prepared, String> {
    let mut prepared = Prepared {
        form: form.unwrap_or(Form::Messages),
        vocabulary: Vocabulary::default(),
        overhead: Overhead::default(),
        calls: 0,
        notes: Vec::new(),
    };
    if form != Some(Form::Messages) && client.engine.takes_ids() {
        let all: String = prepared
            .vocabulary
            .words
            .iter()
            .map(|word| word.text.as_str())
            .collect();
        let mut ids = client.tokenize(&all).await.unwrap_or_default();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() > 1 {
            prepared.vocabulary.ids = ids;
            prepared.form = Form::Ids;
            let first = Prompt::Ids(prepared.vocabulary.ids.clone());
            ask(client, clock, first, &mut prepared.calls).await?;
            return Ok(prepared);
        }
    }
    if form == Some(Form::Ids) {
        return Err(format!(
            "{} does not take token ids and tell those of its answers",
            client.engine.name()
        ));
    }
    count_words(client, &mut prepared).await;
    measure_template(client, clock, &mut prepared).await?;
    Ok(prepared)
}

/// Asks the engine's tokenizer what each word costs, where it has one for us.
async fn count_words(client: &Client, prepared: &mut Prepared) {
    let count = async |text: String| client.tokenize(&text).await.map(|ids| ids.len() as u64);
    let Some(alone) = count(OPENING.to_string()).await else {
        return;
    };
    for word in &mut prepared.vocabulary.words {
        if let Some(both) = count(format!("{OPENING}{}", word.text)).await {
            word.milli = (both - alone.min(both)).max(1) * 1000;
        }
    }
    // With single tokens at hand texts of any length can be made; they also look most like text.
    let words = &mut prepared.vocabulary.words;
    if words.iter().filter(|word| word.milli == 1000).count() >= 32 {
        words.retain(|word| word.milli == 1000);
        return;
    }
    let word = words[0].text.clone();
    let (plain, filled) = (
        count(format!("{OPENING}{word}{word}")).await,
        count(format!("{OPENING}{word}\n\n{word}")).await,
    );
    if let (Some(plain), Some(filled)) = (plain, filled)
        && filled == plain + 2
    {
        prepared.vocabulary.filler = Some("\n".to_string());
    }
}

/// How many words each message of a probe has.
const WORDS: usize = 40;

/// Finds what the template adds by what the engine counts for prompts of known words.
async fn measure_template(
    client: &Client,
    clock: Clock,
    prepared: &mut Prepared,
) -> Result<(), String> {
    let words = &prepared.vocabulary.words;
    let some: Vec<_> = words.iter().take(WORDS).collect();
    let text: String = some.iter().map(|word| word.text.as_str()).collect();
    let cost = (some.iter().map(|word| word.milli).sum::<u64>() / 1000).cast_signed();
    let all: String = words.iter().map(|word| word.text.as_str()).collect();
    let all_cost = (words.iter().map(|word| word.milli).sum::<u64>() / 1000).cast_signed();
    let message = |role| (role, format!("{OPENING}{text}"));
    let user = message(Role::User);
    let mut calls = 0;
    let mut probe = async |messages: Vec<(Role, String)>| {
        let prompt = Prompt::Messages(messages);
        ask(client, clock, prompt, &mut calls).await
    };
    let one = probe(vec![user.clone()]).await?;
    let two = probe(vec![user.clone(), message(Role::Assistant), user.clone()]).await;
    let headed = probe(vec![message(Role::System), user.clone()]).await;
    let long = probe(vec![(Role::User, format!("{OPENING}{all}"))]).await?;
    prepared.calls += calls;
    prepared.overhead.takes_system = headed.is_ok();
    if headed.is_err() {
        let note = "the engine takes no system message; heads begin the first message of the user";
        prepared.notes.push(note.to_string());
    }
    let (Some(one), Some(long)) = (one, long) else {
        let note =
            "the engine does not count prompt tokens; their number is what words usually cost";
        prepared.notes.push(note.to_string());
        return Ok(());
    };
    let beyond = long - one - (all_cost - cost);
    if beyond != 0 {
        // Not every word is the one token it was taken for: spread the difference evenly.
        let factor = (long - one) as f64 / (all_cost - cost).max(1) as f64;
        for word in &mut prepared.vocabulary.words {
            word.milli = ((word.milli as f64 * factor).round() as u64).max(1);
        }
    }
    let some = prepared.vocabulary.words.iter().take(WORDS);
    let cost = (some.map(|word| word.milli).sum::<u64>() / 1000).cast_signed();
    let beyond =
        |counted: Option<i64>, words: i64| counted.map_or(0, |it| (it - one - words).max(0));
    prepared.overhead.base = (one - cost).max(0);
    prepared.overhead.turn = beyond(two.unwrap_or_default(), 2 * cost);
    prepared.overhead.system = beyond(headed.unwrap_or_default(), cost);
    Ok(())
}

/// How often a probe is made before it counts as failed.
const TRIES: u32 = 3;

/// Makes a call of one token; returns how many tokens its prompt was.
async fn ask(
    client: &Client,
    clock: Clock,
    prompt: Prompt,
    calls: &mut u32,
) -> Result<Option<i64>, String> {
    let mut why = String::new();
    for _ in 0..TRIES {
        *calls += 1;
        let now = clock.now();
        let (seen, _) = client
            .ask(clock, Measured::begun(now, now), prompt.clone(), 1)
            .await;
        if !seen.outcome.failed() {
            return Ok(seen.prompt.map(u64::cast_signed));
        }
        why = seen.error.unwrap_or_default();
        if !seen.outcome.passing() {
            break;
        }
    }
    Err(why)
}
