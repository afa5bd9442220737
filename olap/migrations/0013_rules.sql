CREATE TABLE IF NOT EXISTS {{table "rule_sets"}} (
    rules_version Int32,
    hash String,
    text String,
    applied_at DateTime64(6, 'UTC'),
    forced Bool,
    replay_from DateTime64(6, 'UTC'),
    replay_to DateTime64(6, 'UTC'),
    replay_events UInt64,
    replay String,
    version UInt64
) ENGINE = {{engine "ReplacingMergeTree" "version"}}
ORDER BY (rules_version, hash, applied_at);

{{distributed "rule_sets"}};
