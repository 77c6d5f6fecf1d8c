//! A hundred mutations of every sample of a serving format: none breaks a reader, none takes ten times as long.

use crate::fuzz_trace::{mutate, try_out};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

const SAMPLES: [(&str, &str); 9] = [
    (
        "spans.jsonl",
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"t","spanId":"a","parentSpanId":"","startTimeUnixNano":"1780000000000000000","endTimeUnixNano":"1780000009000000000","attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"invoke_agent"}}]},{"traceId":"t","spanId":"b","parentSpanId":"a","startTimeUnixNano":"1780000001000000000","endTimeUnixNano":"1780000002000000000","attributes":[{"key":"gen_ai.usage.input_tokens","value":{"intValue":"100"}},{"key":"gen_ai.usage.output_tokens","value":{"intValue":"10"}},{"key":"gen_ai.input.messages","value":{"stringValue":"[{\"role\":\"user\",\"parts\":[{\"type\":\"text\",\"content\":\"go\"}]}]"}}]}]}]}]}
{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"t","spanId":"c","parentSpanId":"a","startTimeUnixNano":"1780000002000000000","endTimeUnixNano":"1780000003000000000","attributes":[{"key":"gen_ai.operation.name","value":{"stringValue":"execute_tool"}},{"key":"gen_ai.tool.name","value":{"stringValue":"x"}}]},{"traceId":"t","spanId":"d","parentSpanId":"a","startTimeUnixNano":"1780000004000000000","endTimeUnixNano":"1780000005000000000","attributes":[{"key":"gen_ai.usage.input_tokens","value":{"intValue":"130"}},{"key":"gen_ai.usage.output_tokens","value":{"intValue":"10"}}]}]}]}]}
"#,
    ),
    (
        "log.jsonl",
        r#"{"timestamp":1780000000.5,"duration_ms":900,"request":{"model":"m","tools":[{"name":"bash"}],"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"go"}]},"response":{"id":"a","choices":[{"message":{"role":"assistant","content":"gone","tool_calls":[{"function":{"name":"bash","arguments":"{\"a\":1}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":100,"completion_tokens":20,"completion_tokens_details":{"reasoning_tokens":5}}}}
{"timestamp":1780000005,"latency_ms":900,"request":{"model":"m","previous_response_id":"a","input":[{"type":"function_call_output","call_id":"c","output":"fine"}]},"response":"event: x\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[],\"usage\":{\"input_tokens\":150,\"output_tokens\":5}}}\n"}
{"request":{"timestamp":1780000009.1,"body":{"system":"s","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}},"response":{"timestamp":1780000011,"body_raw":"data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":9,\"cache_read_input_tokens\":40}}}\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"text\":\"x\"}}\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":7}}\n"}}
"#,
    ),
    (
        "capture.har",
        r#"{"log":{"creator":{"name":"x"},"entries":[{"startedDateTime":"2026-05-01T10:00:00Z","time":1500,"timings":{"wait":200},"request":{"headers":[{"name":"x-session-id","value":"w"}],"postData":{"text":"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"go\"}]}"}},"response":{"status":200,"content":{"encoding":"base64","text":"eyJjaG9pY2VzIjpbeyJtZXNzYWdlIjp7ImNvbnRlbnQiOiJ4In19XSwidXNhZ2UiOnsicHJvbXB0X3Rva2VucyI6OSwiY29tcGxldGlvbl90b2tlbnMiOjF9fQ=="}}}]}}"#,
    ),
    (
        "dynamo.jsonl",
        r#"{"timestamp":1,"event":{"schema":"dynamo.agent.trace.v1","event_type":"request_end","event_time_unix_ms":1777312801000,"agent_context":{"session_id":"r","trajectory_id":"a"},"request":{"model":"m","output_tokens":16,"total_time_ms":500.5,"replay":{"trace_block_size":64,"input_length":128,"input_sequence_hashes":[14879255164371896291,7]}}}}
{"event":{"schema":"dynamo.agent.trace.v1","event_type":"tool_end","event_time_unix_ms":1777312801500,"agent_context":{"session_id":"r","trajectory_id":"a"},"tool":{"tool_call_id":"c","tool_class":"w","duration_ms":420.5}}}
{"schema":"dynamo.request.trace.v1","event_type":"request_end","event_time_unix_ms":1777312802000,"agent_context":{"session_id":"r","trajectory_id":"b","parent_trajectory_id":"a"},"request":{"model":"m","output_tokens":16,"request_received_ms":1777312801800,"total_time_ms":100,"input_tokens":70}}
"#,
    ),
    (
        "bailian.jsonl",
        r#"{"chat_id":10,"parent_chat_id":-1,"timestamp":5.0,"input_length":40,"output_length":9,"type":"text","turn":1,"hash_ids":[1,2,3]}
{"chat_id":12,"parent_chat_id":10,"timestamp":65.5,"input_length":70,"output_length":9,"type":"text","turn":2,"hash_ids":[1,2,4,5,6]}
"#,
    ),
    (
        "workload.csv",
        "session_id,arrival_time,round_idx,prefix_len,input_len,output_len,tool_wait_after_ms\n0,0,0,0,512,64,100\n0,0,1,576,128,64,100\n0,0,2,300,500,9,0\n",
    ),
    (
        "burst.csv",
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,7,2.5,GPT-4,100,50,150,x\n40,7,3,GPT-4,180,20,200,x\n",
    ),
    (
        "azure.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n",
    ),
    (
        "dag.jsonl",
        r#"{"session_id":"root","turns":[{"messages":[{"role":"user","content":"plan"}],"max_tokens":20,"spawns":["fresh",{"children":["fresh"],"join_at":1}]},{"messages":[{"role":"user","content":"merge"}],"max_tokens":4,"forks":["heir","root"]}]}
{"session_id":"fresh","turns":[{"messages":[{"role":"user","content":"look"}],"max_tokens":6}]}
{"session_id":"heir","turns":[{"text":"go on","max_tokens":6,"delay":5}]}
"#,
    ),
];

fn samples() -> Vec<(String, Vec<u8>)> {
    let own = SAMPLES
        .iter()
        .map(|(name, text)| ((*name).to_string(), text.as_bytes().to_vec()));
    let mut samples: Vec<(String, Vec<u8>)> = own.collect();
    for (folder, name) in [
        ("tracelab", "sanitized_round_trace.jsonl"),
        ("tracelab", "derived_round_trace.jsonl"),
        ("otel-genai", "sample-4_VSGitHubCopilot_traces.jsonl"),
        ("servegen", "m-large_chunk-0-trace.csv"),
    ] {
        if let Some(folder) = crate::trace::shared(folder) {
            let mut bytes = std::fs::read(folder.join(name)).unwrap();
            bytes.truncate(60_000);
            samples.push((name.to_string(), bytes));
        }
    }
    samples
}

#[test]
fn a_hundred_mutations_of_every_serving_sample_are_harmless() {
    let samples = samples();
    for (at, (name, bytes)) in samples.iter().enumerate() {
        let (read, usual) = crate::trace::timed(|| try_out(name, bytes));
        assert!(
            read || at >= SAMPLES.len(),
            "{name} cannot be read as it is"
        );
        let mut tried = 0;
        for seed in 0..100 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (_, other) = &samples[(at + 1) % samples.len()];
            let mut mutated = bytes.clone();
            mutate(&mut mutated, other, &mut rng);
            let (_, took) = crate::trace::timed(|| try_out(name, &mutated));
            // A machine that does other things too may stop for a while.
            assert!(
                took < 10.0 * usual.max(0.05),
                "{name}, seed {seed}: {took} s instead of {usual}"
            );
            tried += 1;
        }
        assert_eq!(tried, 100);
    }
}
