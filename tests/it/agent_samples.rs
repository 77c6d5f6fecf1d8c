//! Small logs of agents, written for these tests: what each format looks like, and what is hard about it.

/// Claude Code: an answer over three lines with partial counts, two tools at once, a sub-agent of the older kind inline,
/// a compaction, and an error that is no answer.
pub(crate) const CLAUDE: &str = r#"{"type":"summary","summary":"x","leafUuid":"l"}
{"type":"user","uuid":"u1","parentUuid":null,"sessionId":"S1","timestamp":"2026-01-01T00:00:00.000Z","message":{"role":"user","content":"please do the thing"}}
{"type":"assistant","uuid":"a1","parentUuid":"u1","sessionId":"S1","requestId":"r1","timestamp":"2026-01-01T00:00:02.000Z","message":{"id":"m1","model":"big","role":"assistant","content":[{"type":"text","text":"I will look."}],"usage":{"input_tokens":10,"cache_creation_input_tokens":1000,"cache_read_input_tokens":9000,"output_tokens":3}}}
{"type":"assistant","uuid":"a2","parentUuid":"a1","sessionId":"S1","requestId":"r1","timestamp":"2026-01-01T00:00:03.000Z","message":{"id":"m1","model":"big","role":"assistant","content":[{"type":"tool_use","id":"t1","name":"Bash","input":{"command":"ls"}}],"usage":{"input_tokens":10,"cache_creation_input_tokens":1000,"cache_read_input_tokens":9000,"output_tokens":60}}}
{"type":"user","uuid":"u2","parentUuid":"a2","sessionId":"S1","timestamp":"2026-01-01T00:00:05.000Z","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"a file"}]},"toolUseResult":{"stdout":"a file","interrupted":false}}
{"type":"assistant","uuid":"a3","parentUuid":"a2","sessionId":"S1","requestId":"r1","timestamp":"2026-01-01T00:00:04.000Z","message":{"id":"m1","model":"big","role":"assistant","content":[{"type":"tool_use","id":"t2","name":"Task","input":{"prompt":"search"}}],"stop_reason":"tool_use","usage":{"input_tokens":10,"cache_creation_input_tokens":1000,"cache_read_input_tokens":9000,"output_tokens":100}}}
{"type":"user","uuid":"s1","parentUuid":null,"isSidechain":true,"agentId":"A7","sessionId":"S1","timestamp":"2026-01-01T00:00:05.000Z","message":{"role":"user","content":"search"}}
{"type":"assistant","uuid":"s2","parentUuid":"s1","isSidechain":true,"agentId":"A7","sessionId":"S1","requestId":"r2","timestamp":"2026-01-01T00:00:09.000Z","message":{"id":"m2","model":"small","role":"assistant","content":[{"type":"text","text":"found it"}],"stop_reason":"end_turn","usage":{"input_tokens":3000,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":40}}}
{"type":"user","uuid":"u3","parentUuid":"a3","sessionId":"S1","timestamp":"2026-01-01T00:00:09.500Z","message":{"role":"user","content":[{"type":"tool_result","tool_use_id":"t2","content":"found it"}]},"toolUseResult":{"agentId":"A7","status":"completed","totalDurationMs":4400}}
{"type":"assistant","uuid":"a4","parentUuid":"u3","sessionId":"S1","requestId":"r3","timestamp":"2026-01-01T00:00:12.500Z","message":{"id":"m3","model":"big","role":"assistant","content":[{"type":"text","text":"done"}],"stop_reason":"end_turn","usage":{"input_tokens":5,"cache_creation_input_tokens":300,"cache_read_input_tokens":10010,"output_tokens":20}}}
{"type":"assistant","uuid":"e1","parentUuid":"a4","sessionId":"S1","timestamp":"2026-01-01T00:00:13.000Z","isApiErrorMessage":true,"message":{"id":"e","model":"<synthetic>","role":"assistant","content":[{"type":"text","text":"overloaded"}],"usage":{"input_tokens":0,"output_tokens":0}}}
{"type":"system","subtype":"compact_boundary","uuid":"c1","parentUuid":null,"logicalParentUuid":"a4","sessionId":"S1","timestamp":"2026-01-01T00:01:00.000Z","compactMetadata":{"trigger":"manual","preTokens":10335}}
{"type":"user","uuid":"c2","parentUuid":"c1","sessionId":"S1","isCompactSummary":true,"timestamp":"2026-01-01T00:01:00.000Z","message":{"role":"user","content":"this session is continued: we did the thing"}}
{"type":"user","uuid":"u4","parentUuid":"c2","sessionId":"S1","timestamp":"2026-01-01T00:01:12.500Z","message":{"role":"user","content":"and now the other thing"}}
{"type":"assistant","uuid":"a5","parentUuid":"u4","sessionId":"S1","requestId":"r4","timestamp":"2026-01-01T00:01:15.500Z","message":{"id":"m4","model":"big","role":"assistant","content":[{"type":"text","text":"also done"}],"stop_reason":"end_turn","usage":{"input_tokens":50,"cache_creation_input_tokens":1000,"cache_read_input_tokens":9000,"output_tokens":30}}}
"#;

/// Codex: a count that is repeated for rate limits, a tool that says how long it ran, a compaction.
pub(crate) const CODEX: &str = r#"{"timestamp":"2026-01-01T00:00:00.000Z","type":"session_meta","payload":{"id":"C1","cli_version":"0.200.0","base_instructions":{"text":"You are an agent."}}}
{"timestamp":"2026-01-01T00:00:00.100Z","type":"turn_context","payload":{"model":"gpt-x"}}
{"timestamp":"2026-01-01T00:00:01.000Z","type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"count the files"}]}}
{"timestamp":"2026-01-01T00:00:03.000Z","type":"response_item","payload":{"type":"reasoning","summary":[],"encrypted_content":"xxxx"}}
{"timestamp":"2026-01-01T00:00:04.000Z","type":"response_item","payload":{"type":"function_call","name":"exec_command","arguments":"{\"cmd\":\"ls\"}","call_id":"k1"}}
{"timestamp":"2026-01-01T00:00:04.100Z","type":"event_msg","payload":{"type":"token_count","info":{"total_token_usage":{"input_tokens":5000,"cached_input_tokens":4096,"output_tokens":200,"reasoning_output_tokens":150,"total_tokens":5200},"last_token_usage":{"input_tokens":5000,"cached_input_tokens":4096,"output_tokens":200,"reasoning_output_tokens":150,"total_tokens":5200}}}}
{"timestamp":"2026-01-01T00:00:04.200Z","type":"event_msg","payload":{"type":"token_count","info":{"total_token_usage":{"input_tokens":5000,"cached_input_tokens":4096,"output_tokens":200,"reasoning_output_tokens":150,"total_tokens":5200},"last_token_usage":{"input_tokens":5000,"cached_input_tokens":4096,"output_tokens":200,"reasoning_output_tokens":150,"total_tokens":5200}},"rate_limits":{}}}
{"timestamp":"2026-01-01T00:00:04.300Z","type":"event_msg","payload":{"type":"token_count","info":null,"rate_limits":{}}}
{"timestamp":"2026-01-01T00:00:07.000Z","type":"response_item","payload":{"type":"function_call_output","call_id":"k1","output":"Chunk ID: 1\nWall time: 2.5000 seconds\nProcess exited with code 0\nOutput:\na b c"}}
{"timestamp":"2026-01-01T00:00:09.000Z","type":"response_item","payload":{"type":"message","role":"assistant","content":[{"type":"output_text","text":"three"}]}}
{"timestamp":"2026-01-01T00:00:09.100Z","type":"event_msg","payload":{"type":"token_count","info":{"total_token_usage":{"input_tokens":10300,"cached_input_tokens":9216,"output_tokens":210,"reasoning_output_tokens":150,"total_tokens":10510},"last_token_usage":{"input_tokens":5300,"cached_input_tokens":5120,"output_tokens":10,"reasoning_output_tokens":0,"total_tokens":5310}}}}
{"timestamp":"2026-01-01T00:00:20.000Z","type":"compacted","payload":{"message":"","replacement_history":[{"type":"message","role":"user","content":[{"type":"input_text","text":"count the files"}]}]}}
{"timestamp":"2026-01-01T00:00:30.000Z","type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"again"}]}}
{"timestamp":"2026-01-01T00:00:32.000Z","type":"response_item","payload":{"type":"message","role":"assistant","content":[{"type":"output_text","text":"three"}]}}
{"timestamp":"2026-01-01T00:00:32.100Z","type":"event_msg","payload":{"type":"token_count","info":{"total_token_usage":{"input_tokens":15200,"cached_input_tokens":13312,"output_tokens":220,"reasoning_output_tokens":150,"total_tokens":15420},"last_token_usage":{"input_tokens":4900,"cached_input_tokens":4096,"output_tokens":10,"reasoning_output_tokens":0,"total_tokens":4910}}}}
"#;

/// The first generation of Codex rollouts: items as they are, without counts.
pub(crate) const CODEX_BARE: &str = r#"{"id":"old","timestamp":"2025-05-01T10:00:00.000Z","instructions":null,"git":{}}
{"record_type":"state"}
{"type":"message","role":"user","content":[{"type":"input_text","text":"hello there, list the files please"}]}
{"type":"function_call","id":"f","name":"shell","arguments":"{\"command\":[\"ls\"]}","call_id":"k1"}
{"type":"function_call_output","call_id":"k1","output":"{\"output\":\"a\\nb\\n\",\"metadata\":{\"exit_code\":0,\"duration_seconds\":0.7}}"}
{"type":"message","role":"assistant","content":[{"type":"output_text","text":"There are a and b."}]}
"#;

/// Qwen Code: telemetry of a call and a tool, and a compression.
pub(crate) const QWEN: &str = r#"{"uuid":"1","parentUuid":null,"sessionId":"Q1","timestamp":"2026-01-01T00:00:00.000Z","type":"user","message":{"role":"user","parts":[{"text":"look around"}]}}
{"uuid":"2","parentUuid":"1","sessionId":"Q1","timestamp":"2026-01-01T00:00:05.000Z","type":"assistant","model":"qwen","usageMetadata":{"promptTokenCount":8000,"candidatesTokenCount":90,"thoughtsTokenCount":40,"cachedContentTokenCount":0,"totalTokenCount":8090},"message":{"role":"model","parts":[{"text":"hm","thought":true},{"functionCall":{"id":"k1","name":"glob","args":{"pattern":"*"}}}]}}
{"uuid":"3","parentUuid":"2","sessionId":"Q1","timestamp":"2026-01-01T00:00:05.010Z","type":"system","subtype":"ui_telemetry","systemPayload":{"uiEvent":{"event.name":"qwen-code.api_response","duration_ms":4200,"input_token_count":8000,"output_token_count":90}}}
{"uuid":"4","parentUuid":"3","sessionId":"Q1","timestamp":"2026-01-01T00:00:07.000Z","type":"system","subtype":"ui_telemetry","systemPayload":{"uiEvent":{"event.name":"qwen-code.tool_call","function_name":"glob","duration_ms":150,"success":true}}}
{"uuid":"5","parentUuid":"4","sessionId":"Q1","timestamp":"2026-01-01T00:00:07.000Z","type":"tool_result","message":{"role":"user","parts":[{"functionResponse":{"id":"k1","name":"glob","response":{"output":"a b"}}}]},"toolCallResult":{"callId":"k1","status":"success"}}
{"uuid":"6","parentUuid":"5","sessionId":"Q1","timestamp":"2026-01-01T00:00:09.000Z","type":"assistant","model":"qwen","usageMetadata":{"promptTokenCount":8100,"candidatesTokenCount":20,"cachedContentTokenCount":8000},"message":{"role":"model","parts":[{"text":"two files"}]}}
{"uuid":"7","parentUuid":"6","sessionId":"Q1","timestamp":"2026-01-01T00:00:10.000Z","type":"system","subtype":"chat_compression","systemPayload":{"compressedHistory":[{"role":"user","parts":[{"text":"state: two files"}]},{"role":"model","parts":[{"text":"ok"}]}]}}
{"uuid":"8","parentUuid":"7","sessionId":"Q1","timestamp":"2026-01-01T00:01:00.000Z","type":"user","message":{"role":"user","parts":[{"text":"go on"}]}}
{"uuid":"9","parentUuid":"8","sessionId":"Q1","timestamp":"2026-01-01T00:01:02.000Z","type":"assistant","model":"qwen","usageMetadata":{"promptTokenCount":7990,"candidatesTokenCount":5,"cachedContentTokenCount":7900},"message":{"role":"model","parts":[{"text":"done"}]}}
"#;

/// Gemini CLI: a reply with thoughts and a tool, written twice under its id.
pub(crate) const GEMINI: &str = r#"{"sessionId":"G1","projectHash":"p","startTime":"2026-01-01T00:00:00.000Z","kind":"main"}
{"id":"u","timestamp":"2026-01-01T00:00:00.000Z","type":"user","content":[{"text":"hello"}]}
{"id":"g","timestamp":"2026-01-01T00:00:02.000Z","type":"gemini","content":"","model":"gem","tokens":{"input":9000,"output":30,"cached":0,"thoughts":200,"tool":0,"total":9230}}
{"id":"g","timestamp":"2026-01-01T00:00:02.000Z","type":"gemini","content":"","model":"gem","thoughts":[{"subject":"a","description":"b"}],"tokens":{"input":9000,"output":30,"cached":0,"thoughts":200,"tool":0,"total":9230},"toolCalls":[{"id":"k","name":"ls","args":{"path":"."},"status":"success","timestamp":"2026-01-01T00:00:02.250Z","result":[{"functionResponse":{"response":{"output":"a b"}}}]}]}
{"id":"h","timestamp":"2026-01-01T00:00:04.000Z","type":"gemini","content":"two","model":"gem","tokens":{"input":9060,"output":2,"cached":8900,"thoughts":0,"tool":0,"total":9062}}
"#;

/// An opencode export: one message with two calls, told apart by their steps.
pub(crate) const OPENCODE: &str = r#"{"info":{"id":"ses_1","title":"t","time":{"created":1760000000000,"updated":1760000060000}},"messages":[
{"info":{"id":"msg_1","sessionID":"ses_1","role":"user","time":{"created":1760000000000}},"parts":[{"id":"p1","type":"text","text":"look at the files"}]},
{"info":{"id":"msg_2","sessionID":"ses_1","role":"assistant","modelID":"m","time":{"created":1760000000100,"completed":1760000009000}},"parts":[
{"id":"p2","type":"step-start"},{"id":"p3","type":"reasoning","text":"hm","time":{"start":1760000001000,"end":1760000002000}},
{"id":"p4","type":"tool","tool":"bash","callID":"k1","state":{"status":"completed","input":{"command":"ls"},"output":"a b","metadata":{"exit":0},"time":{"start":1760000002500,"end":1760000003250}}},
{"id":"p5","type":"step-finish","tokens":{"input":100,"output":30,"reasoning":20,"cache":{"read":7000,"write":900}}},
{"id":"p6","type":"step-start"},{"id":"p7","type":"text","text":"two files","time":{"start":1760000005000,"end":1760000006000}},
{"id":"p8","type":"step-finish","tokens":{"input":40,"output":10,"reasoning":0,"cache":{"read":8000,"write":30}}}]}]}"#;

/// mini-swe-agent of version 2: raw replies with usage, stamps of ends.
pub(crate) const MINI: &str = r#"{"info":{"model_stats":{"instance_cost":0.1,"api_calls":2},"config":{"model":{"model_name":"m"}},"exit_status":"Submitted"},"messages":[
{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"Fix the bug."},
{"role":"assistant","content":"ls","extra":{"actions":[{"command":"ls"}],"timestamp":1760000010.5,"response":{"model":"m-1","usage":{"prompt_tokens":1200,"completion_tokens":30,"prompt_tokens_details":{"cached_tokens":0}}}}},
{"role":"user","content":"a b","extra":{"returncode":0,"timestamp":1760000012.0}},
{"role":"assistant","content":"submit","extra":{"actions":[{"command":"submit"}],"timestamp":1760000015.0,"response":{"model":"m-1","usage":{"prompt_tokens":1250,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":1152}}}}},
{"role":"exit","content":"","extra":{"timestamp":1760000015.5}}],"trajectory_format":"mini-swe-agent-1.1"}"#;

/// A SWE-agent step with its whole prompt, the second of which leaves an observation out.
pub(crate) const SWE_QUERY: &str = r#"{"environment":"e","trajectory":[
{"action":"ls -F","observation":"a b c d e f","response":"let me look","execution_time":0.25,"query":[{"role":"system","content":"sys"},{"role":"user","content":"a long issue text that takes many words to say"}]},
{"action":"cat a","observation":"text","response":"and now this","execution_time":0.5,"query":[{"role":"system","content":"sys"},{"role":"user","content":"a long issue text that takes many words to say"},{"role":"assistant","content":"let me look"},{"role":"user","content":"a b c d e f"}]},
{"action":"submit","observation":"","response":"over","execution_time":0.125,"query":[{"role":"system","content":"sys"},{"role":"user","content":"a long issue text that takes many words to say"},{"role":"assistant","content":"let me look"},{"role":"user","content":"Old output omitted"},{"role":"assistant","content":"and now this"},{"role":"user","content":"text"}]}],
"history":[{"role":"system","content":"sys"}],"info":{"model_stats":{"tokens_sent":1000,"tokens_received":101,"api_calls":3}}}"#;

/// What Cline shows: two requests, a tool that waits for approval, counts that leave cached tokens out.
pub(crate) const CLINE: &str = r#"[{"ts":1760000000000,"type":"say","say":"task","text":"fix it"},
{"ts":1760000000100,"type":"say","say":"api_req_started","text":"{\"request\":\"<task>fix it</task>\",\"tokensIn\":400,\"tokensOut\":50,\"cacheWrites\":9000,\"cacheReads\":0,\"cost\":0.1}"},
{"ts":1760000003000,"type":"say","say":"text","text":"I will run the tests."},
{"ts":1760000004000,"type":"ask","ask":"command","text":"make test"},
{"ts":1760000010000,"type":"say","say":"command_output","text":"ok"},
{"ts":1760000012000,"type":"say","say":"api_req_started","text":"{\"request\":\"[execute_command] Result: ok\",\"tokensIn\":20,\"tokensOut\":15,\"cacheWrites\":200,\"cacheReads\":9400,\"cost\":0.1}"},
{"ts":1760000014000,"type":"say","say":"completion_result","text":"All good."}]"#;

/// What Cline sent, as newer versions write it.
pub(crate) const CLINE_SENT: &str = r#"[{"role":"user","content":[{"type":"text","text":"<task>fix it</task>"}],"ts":1760000000000},
{"role":"assistant","content":[{"type":"text","text":"on it"},{"type":"tool_use","id":"k","name":"read_file","input":{"path":"a"}}],"ts":1760000004000,"modelInfo":{"modelId":"m"},"metrics":{"tokens":{"prompt":500,"completion":40,"cached":9000}}},
{"role":"user","content":[{"type":"tool_result","tool_use_id":"k","content":"text"}],"ts":1760000005000},
{"role":"assistant","content":[{"type":"text","text":"done"}],"ts":1760000007000}]"#;

/// aider's chat history: two answers, with counts as it prints them.
pub(crate) const AIDER_CHAT: &str = "
# aider chat started at 2026-01-01 10:00:00

> Aider v0.86.0
> Model: sonnet with diff edit format

#### add a function

Here it is.

> Tokens: 2.9k sent, 2.4k cache write, 0 cache hit, 53 received. Cost: $0.01 message, $0.01 session.

#### and a test

A test.

> Tokens: 3.1k sent, 120 received. Cost: $0.01 message, $0.02 session.
";

/// aider's log of prompts.
pub(crate) const AIDER_PROMPTS: &str = "
TO LLM 2026-01-01T10:00:00
-------
SYSTEM Act as an expert software developer.
SYSTEM Always be brief.
-------
USER add a function
LLM RESPONSE 2026-01-01T10:00:04
ASSISTANT def f(): pass

TO LLM 2026-01-01T10:00:30
-------
SYSTEM Act as an expert software developer.
SYSTEM Always be brief.
-------
USER add a function
-------
ASSISTANT def f(): pass
-------
USER and a test
LLM RESPONSE 2026-01-01T10:00:37
ASSISTANT def test(): f()
";

/// aider's analytics.
pub(crate) const AIDER_ANALYTICS: &str = r#"{"event":"launched","properties":{},"user_id":"u","time":1760000000}
{"event":"cli session","properties":{"main_model":"m"},"user_id":"u","time":1760000001}
{"event":"message_send","properties":{"main_model":"m","prompt_tokens":2900,"completion_tokens":53,"total_tokens":2953},"user_id":"u","time":1760000005}
{"event":"message_send","properties":{"main_model":"m","prompt_tokens":3100,"completion_tokens":120,"total_tokens":3220},"user_id":"u","time":1760000050}
{"event":"exit","properties":{},"user_id":"u","time":1760000060}
"#;

/// ATIF with a sub-agent inside.
pub(crate) const ATIF: &str = r#"{"schema_version":"ATIF-v1.7","session_id":"T1","agent":{"name":"a","version":"1","model_name":"m","tool_definitions":[{"name":"run"}]},"steps":[
{"step_id":1,"timestamp":"2026-01-01T00:00:00Z","source":"user","message":"do it"},
{"step_id":2,"timestamp":"2026-01-01T00:00:05Z","source":"agent","message":"running","tool_calls":[{"tool_call_id":"k1","function_name":"run","arguments":{"c":"ls"}}],"observation":{"results":[{"source_call_id":"k1","content":"a b","extra":{"duration_ms":750},"subagent_trajectory_ref":[{"trajectory_id":"child"}]}]},"metrics":{"prompt_tokens":4000,"completion_tokens":80,"cached_tokens":0}},
{"step_id":3,"timestamp":"2026-01-01T00:00:12Z","source":"agent","message":"done","metrics":{"prompt_tokens":4200,"completion_tokens":10,"cached_tokens":4000}}],
"subagent_trajectories":[{"schema_version":"ATIF-v1.7","trajectory_id":"child","agent":{"name":"helper","version":"1"},"steps":[{"step_id":1,"source":"user","message":"help"},{"step_id":2,"timestamp":"2026-01-01T00:00:08Z","source":"agent","message":"helped","metrics":{"prompt_tokens":700,"completion_tokens":7}}]}],
"final_metrics":{"total_prompt_tokens":8900,"total_completion_tokens":97}}"#;

/// Every sample with the name of its format.
pub(crate) const ALL: [(&str, &str, &str); 15] = [
    ("claude-code", "claude.jsonl", CLAUDE),
    ("codex", "codex.jsonl", CODEX),
    ("codex", "codex-bare.jsonl", CODEX_BARE),
    ("qwen-code", "qwen.jsonl", QWEN),
    ("gemini-cli", "gemini.jsonl", GEMINI),
    ("opencode", "opencode.json", OPENCODE),
    ("mini-swe-agent", "mini.traj.json", MINI),
    ("swe-agent", "swe.traj", SWE_QUERY),
    ("cline", "ui_messages.json", CLINE),
    ("cline", "api_conversation_history.json", CLINE_SENT),
    ("aider", "aider.md", AIDER_CHAT),
    ("aider", "aider.log", AIDER_PROMPTS),
    ("aider", "aider.jsonl", AIDER_ANALYTICS),
    ("atif", "trajectory.json", ATIF),
    ("claude-code", "claude-nothing-told.jsonl", NOTHING_TOLD),
];

/// Claude Code without any count.
const NOTHING_TOLD: &str = r#"{"type":"user","timestamp":"2025-12-24T10:00:00.000Z","sessionId":"s","message":{"role":"user","content":"Create a hello world function"},"uuid":"1"}
{"type":"assistant","timestamp":"2025-12-24T10:00:05.000Z","sessionId":"s","message":{"role":"assistant","content":[{"type":"text","text":"Here is the function that you wanted."}]},"uuid":"2"}
"#;
