//! `laptime selftest`: how well this machine can measure, against an engine of known timing in a process of its own.

use super::live::runtime;
use super::{output, talk};
use crate::agent::{Conduct, Pace};
use crate::error::{Error, Exit};
use crate::fleet::{Plan, Share};
use crate::live::Interrupts;
use crate::live::client::{Address, Client};
use crate::live::mock::{self, Timing};
use crate::live::prompt::Form;
use crate::report::json;
use crate::report::selftest::{SelfTest, render};
use crate::study::live::{Wanted, meet};
use crate::study::replay::{Replay, Workload};
use crate::trace::read::{ReadOptions, load_bytes};
use crate::units::Span;
use clap::Args;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

/// What was typed.
#[derive(Args, Debug)]
pub(super) struct Selftest {
    /// How many answers are read at the same time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    agents: u32,
    /// Tokens per second in each of them.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// The time to the first token.
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = Span::parse)]
    first_token: Span,
    /// For how long each agent reads.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = Span::parse)]
    duration: Span,
    /// How late the client may be before a replay is not valid.
    #[arg(long, value_name = "DURATION", default_value = "5ms", value_parser = Span::parse)]
    max_client_lag: Span,
    /// Write the figures as JSON to the standard output.
    #[arg(long)]
    json: bool,
    /// Be the engine of known timing: serve on loopback, tell the port, end with the standard input.
    #[arg(long, hide = true)]
    engine: bool,
}

/// An engine in a process of its own, which ends with this.
struct Engine {
    process: Child,
    port: u16,
}

impl Engine {
    fn start(test: &Selftest) -> std::io::Result<Engine> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["selftest", "--engine", "--rate", &test.rate.to_string()])
            .arg(format!("--first-token={}ns", test.first_token.0))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(told) = process.stdout.take() {
            BufReader::new(told).read_line(&mut line)?;
        }
        let port = line.trim().parse().map_err(std::io::Error::other)?;
        Ok(Engine { process, port })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // Whether it ended by itself or not, it is gone after this.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Selftest {
    /// Measures and reports.
    pub(super) fn run(self) -> Result<(), Error> {
        let internal = |error: std::io::Error| {
            Error::live(
                Exit::Internal,
                format!("no engine to test against: {error}"),
            )
        };
        if self.engine {
            return self.serve().map_err(internal);
        }
        let engine = Engine::start(&self).map_err(internal)?;
        let test = runtime()?.block_on(self.measure(engine.port))?;
        if self.json {
            json::write_value(&mut std::io::stdout().lock(), &test.json())
                .map_err(Error::stdout)?;
        } else {
            output::print(&render(&test, output::look()))?;
        }
        if test.bound.is_empty() {
            return Ok(());
        }
        let what = format!(
            "this machine cannot measure that: {}",
            test.bound.join("; ")
        );
        Err(Error::live(Exit::ClientBound, what).with_help("try fewer --agents or a lower --rate"))
    }

    fn serve(&self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // Whoever started this holds the other end; when it is gone, so is the need for an engine.
        std::thread::spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(0);
        });
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
            let mut out = std::io::stdout().lock();
            writeln!(out, "{}", listener.local_addr()?.port())?;
            out.flush()?;
            let timing = Timing {
                first: self.first_token,
                between: Span(1_000_000_000 / u64::from(self.rate)),
            };
            mock::serve(listener, timing).await
        })
    }

    async fn measure(&self, port: u16) -> Result<SelfTest, Error> {
        let internal = |what: String| Error::live(Exit::Internal, what);
        let wanted = Wanted {
            address: Address {
                url: format!("http://127.0.0.1:{port}"),
                key: None,
                headers: Vec::new(),
                connect: Span::from_secs(10.0),
                stall: Span::from_secs(60.0),
            },
            engine: None,
            model: None,
            form: Some(Form::Messages),
            extra: serde_json::Map::new(),
            limit: self.max_client_lag,
        };
        let met = meet(&wanted).await;
        let met =
            met.map_err(|why| internal(format!("the test's engine does not answer: {why:?}")))?;
        let client = Client::new(&wanted.address).map_err(internal)?;
        // What the warm-up did is no part of the truth.
        client.text("/truth").await;
        let trace = load_bytes("selftest", self.trace().as_bytes(), &ReadOptions::default());
        let trace = trace.map_err(|error| internal(error.to_string()))?;
        let plan = Plan {
            agents: self.agents,
            runs: None,
            share: Share::Head,
            conduct: Conduct {
                pace: Pace::Recorded,
                ..Conduct::default()
            },
        };
        let workload = Workload::new(&trace, plan, 0);
        let mut interrupts = Interrupts::of_process();
        talk::note(
            false,
            &format!("reading {} answers at {} tokens/s", self.agents, self.rate),
        );
        let nowhere = None::<Vec<u8>>;
        let (replay, _) = met
            .replay(
                &trace,
                &workload,
                0,
                nowhere,
                &mut Vec::new(),
                &mut interrupts,
            )
            .await;
        let truth = client.json("/truth").await.unwrap_or_default();
        Ok(self.held_to(&truth, &replay))
    }

    /// A session of two answers, once for each agent. They begin over one second: agents at work are not in step.
    fn trace(&self) -> String {
        let tokens = (self.duration.secs() * f64::from(self.rate) / 2.0).max(2.0) as u64;
        let mut text =
            String::from("{\"k\":\"header\",\"format\":\"laptime-trace\",\"version\":1}\n");
        for one in 0..self.agents {
            let arrival = u64::from(one) * 1_000_000 / u64::from(self.agents);
            let _ = writeln!(
                text,
                "{{\"k\":\"session\",\"id\":\"s{one}\",\"arrival_us\":{arrival}}}"
            );
            let _ = writeln!(
                text,
                "{{\"k\":\"agent\",\"id\":\"m\",\"session\":\"s{one}\"}}"
            );
            let second = 400 + tokens;
            for (step, edit) in [
                (
                    "a",
                    "\"tokens\":300,\"append\":[{\"tokens\":300}]".to_string(),
                ),
                (
                    "b",
                    format!(
                        "\"tokens\":{second},\"keep\":{},\"append\":[{{\"tokens\":100}}]",
                        300 + tokens
                    ),
                ),
            ] {
                let _ = writeln!(
                    text,
                    "{{\"k\":\"step\",\"id\":\"{step}\",\"session\":\"s{one}\",\"agent\":\"m\",\"prompt\":{{{edit}}},\
                     \"output\":{{\"tokens\":{tokens}}}}}"
                );
            }
        }
        text
    }

    fn held_to(&self, truth: &serde_json::Value, replay: &Replay<'_>) -> SelfTest {
        let nanos = |name: &str| truth["first_ns"][name].as_u64().map(Span);
        let notes = replay.live.as_deref();
        let seen = || {
            notes
                .into_iter()
                .flat_map(|notes| notes.calls.iter().flatten())
        };
        let first = |call: &crate::live::measured::Measured| {
            let (at, _) = call.pieces.first()?;
            Some(*at - call.sent?)
        };
        let mut firsts: Vec<Span> = seen().filter_map(first).collect();
        let got = crate::metrics::stats::Quantiles::of(&mut firsts);
        let stamps = || seen().flat_map(|call| call.pieces.iter().map(|(at, _)| *at));
        let received = stamps().count() as u64;
        let span = stamps()
            .max()
            .unwrap_or_default()
            .since(stamps().min().unwrap_or_default());
        let health = notes
            .and_then(|notes| notes.health.clone())
            .unwrap_or_default();
        let wall = replay.metrics.summary.wall.secs();
        SelfTest {
            agents: self.agents,
            rate: self.rate,
            sent: truth["tokens"].as_u64().unwrap_or_default(),
            received,
            sent_in: Span(truth["span_ns"].as_u64().unwrap_or_default()),
            received_in: span,
            first: [
                nanos("p50").zip(got.map(|it| it.p50)),
                nanos("p99").zip(got.map(|it| it.p99)),
            ],
            processor: health.cores.map(|cores| Span::from_secs(cores * wall)),
            send_lag: health.send_lag.map(|lag| lag.p99),
            loop_lag: health.loop_lag.map(|lag| lag.p99),
            bound: health.bound,
        }
    }
}
