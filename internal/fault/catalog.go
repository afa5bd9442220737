package fault

// catalog is every id ever given, by area. Ids are appended, never reused or renumbered.
var catalog = [...]Entry{
	// EMB: the children of one machine
	{"MR-EMB-001", "data folder already in use", "A platform is running on this data folder. End it with `millrace down --data DIR`, or start another one with its own --data."},
	{"MR-EMB-002", "port in use", "End the process that has the port, or remove the port's line from DIR/ports.json to have another one chosen."},
	{"MR-EMB-003", "needed tool missing", "Install the named tool, or configure the address of a running server so that none has to be started."},
	{"MR-EMB-004", "disk full", "Free at least 2 GiB on the named file system, or move the folder with --data (data) or MILLRACE_CACHE (cache)."},
	{"MR-EMB-005", "checksum differs", "What was downloaded is not what this release was tested with. Remove the named folder and try again; if it stays so, the package mirror serves something else."},
	{"MR-EMB-006", "platform not supported", "Embedded servers need Linux on amd64. Elsewhere configure the addresses of running servers: kafka, clickhouse, redis, temporal."},
	{"MR-EMB-007", "child does not start", "The end of its log is shown; the whole log is in DIR/logs. `millrace child start NAME` tries again at once."},
	{"MR-EMB-008", "no platform running", "Start it with `millrace up --data DIR`, or name the data folder it was started with."},
	{"MR-EMB-009", "no such child", "`millrace status` lists the children."},
	{"MR-EMB-010", "installation failed", "See the reason given. Installing needs the package registries once; afterwards everything comes from the cache folder."},
	{"MR-EMB-011", "broker of another kind", "This data folder's events are in a broker of the other kind. Use that --broker, or another --data."},
	{"MR-EMB-012", "source of the Temporal child not found", "Run from the project's checkout, which holds internal/embedded/temporal, or configure the address of a Temporal server."},
	{"MR-EMB-013", "no Python for the BigQuery emulator", "Install CPython 3.13 or 3.14 with pip (`uv python install 3.13`, `pyenv install 3.13`, or the system's package); or run without `--bigquery emulator`; or configure bigquery.project."},

	// GW: gateway
	{"MR-GW-001", "gateway's address in use", "End the process that listens there, or configure another gateway.listen."},
	{"MR-GW-002", "tenant keys unreadable", "Restore keys.json in the gateway's data folder from a copy. Removing it makes new keys: addresses and cards hashed before are then no longer equal to new ones."},
	{"MR-GW-003", "spool cannot be opened", "The gateway needs a writable folder with free space for its spool: see gateway.spool.dir."},

	// EVT: events and schemas
	{"MR-EVT-001", "a schema was not accepted by the registry", "Compare the registry's schema with event/schema/avsc; subjects are FULL_TRANSITIVE: only optional fields with defaults may be added."},
	{"MR-EVT-002", "a record could not be decoded", "The record was not written by this platform, or the topic is corrupt; look at it with its offset, then skip or repair it."},
	{"MR-EVT-003", "a record names a schema that the registry does not have", "Check that schema_registry points at the registry the producers use."},
	{"MR-EVT-010", "a property cannot become a column", "The message says what is wrong with category, name or type; `millrace columns list` shows the columns that are promoted, `millrace tables describe TABLE` all of them."},

	// REG: schema registry
	{"MR-REG-001", "schema registry configuration refused", "Every problem is listed with its field, value and bound; correct the registry section of the configuration."},
	{"MR-REG-002", "schema topic cannot be made or looked at", "Check that the brokers are reachable and that the registry may create and describe the topic, or create it yourself with one partition and cleanup.policy=compact."},
	{"MR-REG-003", "schema topic has several partitions", "Schemas need one total order: point registry.topic at a topic with one partition, or delete this one if it holds nothing."},
	{"MR-REG-004", "schema topic was lost or cut", "The registry starts again from what the topic holds; if the topic was deleted, restore it or let the roles register their schemas anew."},
	{"MR-REG-005", "schema is not compatible", "Add fields only with a default and remove only fields that have one, or register under a new subject; the details name the field."},
	{"MR-REG-006", "schema could not be registered", "Check the address of the schema registry and that it answers GET /; the cause is in the message."},

	// STR: streaming engine
	{"MR-STR-001", "another process took this worker's place", "Two processes run with the same instance id or transactional id. Stop one, or give each worker slot its own id; then start again: no data is lost or doubled."},
	{"MR-STR-002", "partition count does not fit the stored state", "The number of partitions is one for every topic of a topology and its state, and cannot be changed in place. Restore the old count, or move to a new topic generation with the drain workflow."},
	{"MR-STR-003", "an input topic was deleted and made anew", "Its offsets start again, so the stored position means nothing. If the loss of what was in the old topic is accepted, reset the consumer group and delete the state topics of the topology (or start a new topic generation)."},
	{"MR-STR-004", "input records are no longer there to be read", "The committed position is outside of what the broker holds (retention ran out while the worker was down, or the topic is gone). Restore the topic, or accept the loss by setting the group's offset by hand."},
	{"MR-STR-005", "stored state cannot be read by this version", "The changelog holds a store, a format or bytes that this version does not know: run the version that wrote it, or a later one."},
	{"MR-STR-006", "an operator failed", "The message names the record. The worker stops rather than skip it; report it, and start again with the fixed version: the record is read again."},
	{"MR-STR-007", "an output was refused by the broker for good", "A record is larger than the topic allows, or its topic does not exist or may not be written. Raise max.message.bytes, create the topic or grant the right, then start again."},

	{"MR-STR-008", "a transaction hangs: it is neither committed nor aborted", "A broker lost its markers, as one may that ends while no other leads its partitions. A worker ends what is its own by itself, as long as it knows how that was decided; it keeps trying. `kafka-transactions.sh find-hanging --broker-id N` shows where it is open. If the group's offsets are decided they say how it ended: end it accordingly, never by guessing. If they hang too, `kafka-transactions.sh abort` it in every partition, offsets included, and the worker does that work again. Replication 3 avoids it."},
	{"MR-STR-021", "a record's key is too large", "The record was left out: its key is longer than stream.max_key_bytes, so state kept by it could not be written. The log names topic, partition and offset; look at what wrote it."},
	{"MR-STR-022", "a topic generation cannot be used yet", "State moves to more partitions in steps: producers switch, the old workers drain and end, the state is moved, the new workers start. The message says which step is missing; a move that failed half-way is run again."},
	{"MR-STR-020", "local state cannot be used", "The directory stream.state_dir cannot be made, locked or written (the cause is in the message: rights, a full disk). Mend it, or remove the directory: it is a copy, and the worker restores its state from the changelog."},

	// CH: ClickHouse
	{"MR-CH-001", "ClickHouse cannot be reached", "Check that the server runs (`millrace status`) and that clickhouse.addr, user and password are right."},
	{"MR-CH-002", "the tables cannot be made", "The statement and the server's answer are shown. The user needs CREATE and ALTER on the database, and SELECT on system.columns."},
	{"MR-CH-003", "the database was made by another release", "A migration is never changed after it was applied. Use the release that made the database, or a newer one; or another database."},
	{"MR-CH-004", "query refused", "The server's answer is shown. Queries only read, and are limited in rows, time and memory."},
	{"MR-CH-005", "a table is fed from another topic", "The topic was deleted and made anew, so its offsets start again and would be taken for rows already stored. Restore the topic; or rename the table away, delete the topic's line in sink_topics, and run the migrations again."},
	{"MR-CH-006", "Kafka no longer holds what is to be stored next", "The sink was away for longer than the topic is kept. The named offsets are lost to this table: restore them from the lakehouse, then set the group's offset to the first one that Kafka holds."},
	{"MR-CH-007", "the group's note of an unfinished insert cannot be read", "It was written by a newer release. Start that release again."},

	// ICE: lakehouse
	{"MR-ICE-001", "lakehouse address refused", "Every problem of the iceberg section is listed with its key and what to write instead; docs/lakehouse.md has an example for each catalog and store."},
	{"MR-ICE-002", "a table's columns differ from the schema", "Another program or release changed the table. Compare `millrace tables` with event/schema/ids.json; rename or drop the named column, or use another namespace."},
	{"MR-ICE-003", "the head of a table does not say what it holds", "Another program committed to the table's main branch without the property millrace.offsets. Roll main back to the last snapshot that has it and repeat the other program's change with the property carried over."},
	{"MR-ICE-004", "Kafka no longer holds rows that the table lacks", "The named offsets were deleted before they were stored (retention), or the topic was cut off. Restore them; or `millrace lake resume TABLE` names what is lost and, with --skip, carries the table's offsets over it. The sink does not skip rows by itself."},
	{"MR-ICE-005", "a table was fed from another topic of the same name", "The topic was deleted and created again, so its offsets mean other rows. Point the platform at the old broker, or store the new topic in another namespace."},
	{"MR-ICE-040", "Iceberg catalog cannot be opened", "Check iceberg.catalog_uri, and that the catalog answers from here with the user, password or token that is set; `millrace doctor` tries it."},
	{"MR-ICE-041", "warehouse cannot be reached", "Check iceberg.warehouse and iceberg.store: endpoint, region, credentials, and that the bucket exists and may be read, written and listed; `millrace doctor` tries all of it."},
	{"MR-ICE-060", "no such ref, snapshot or time of a table", "`millrace lake refs TABLE` and `millrace lake log TABLE` show what there is. Snapshots that no branch, tag or lease names expire by the table's policy (`millrace tables describe`)."},
	{"MR-ICE-061", "published is ahead of where main would go", "Roll back to published or a later snapshot, or give --with-published: readers of published then lose rows they have seen, and the table publications says why."},
	{"MR-ICE-062", "a table was not published", "A critical check failed; published stays where it was. `millrace lake publications TABLE` shows all numbers. Mend the table (`millrace workflows start Reconcile`, quarantine or rollback) and publish again; or accept it: `millrace lake approve TABLE --reason …`."},
	{"MR-ICE-063", "a filter or a list of columns cannot be used", "A filter is COLUMN OP LITERAL, joined by AND: = != < <= > >= IN (…) LIKE 'prefix%' IS NULL, IS NOT NULL; texts and times stand in single quotes. `millrace tables describe TABLE` lists the columns."},
	{"MR-ICE-064", "a rollback, release, resumption or approval was refused", "The message says why; nothing has changed. `millrace lake log TABLE` shows what main is made of, --dry-run what a command would do."},
	{"MR-ICE-065", "a data file of a table is damaged or gone", "The file is named; Iceberg's files never change, so restore it in place from the store's versions or a copy. Without one `millrace lake rollback TABLE` to a snapshot from before it (`millrace lake log`): the sink writes the rows since then again, and `millrace reconcile … --repair` brings from ClickHouse what Kafka no longer holds."},

	// BQ: BigQuery
	{"MR-BQ-001", "BigQuery cannot be reached", "It is tried again by itself for a while. If it lasts, look at the endpoint, the network, and status.cloud.google.com; the next load goes on where this one ended."},
	{"MR-BQ-002", "BigQuery refuses us", "Check bigquery.project, the credentials (application default, or bigquery.credentials) and the account's rights: BigQuery Job User on the project, Data Editor on both datasets, billing enabled. docs/bigquery.md lists them."},
	{"MR-BQ-003", "a quota of BigQuery is used up", "Nothing was changed; load again later (table changes are counted by the day). Raise bigquery.min_interval, or the project's quota."},
	{"MR-BQ-004", "a table of BigQuery does not fit the lake's", "Columns that may be null are added by themselves; a type is never changed, since rows would lose something. Rename or drop the named column in BigQuery, or load into another bigquery.dataset."},
	{"MR-BQ-005", "a job would bill more than it may", "Nothing was run. Raise bigquery.max_bytes_billed, or load a smaller range."},
	{"MR-BQ-006", "too many days for BigQuery", "A job takes 4,000 days, a table 10,000. Load a smaller range with `millrace bigquery load --to`, or remove old days from the lake."},
	{"MR-BQ-007", "range refused", "`millrace bigquery status` shows where each table ends. Leave from and to away to load what is published."},
	{"MR-BQ-008", "the table in BigQuery is not the one that was loaded", "Somebody made it anew, or changed its position. To load it from the beginning drop the table position_NAME in the work dataset; days that are there are replaced."},
	{"MR-BQ-009", "staged rows differ from the lake's", "Three times the rows that BigQuery had taken were not those of the range: nothing became visible. Something else writes to the work dataset, or files of the lake change; `millrace bigquery load` tries again."},
	{"MR-BQ-010", "a job of BigQuery failed", "The job's id and its answer are shown; `bq show -j ID` has more. The next load uses another id."},
	{"MR-BQ-011", "BigQuery differs from the lake", "The days are named. `millrace bigquery load --mend` replaces them; if they differ again, somebody else changes the table."},

	// RED: Redis

	// ERA: erasure of persons
	{"MR-ERA-001", "the ledger of erasures has another key", "Every process that reads the ledger needs the same subject.key: set erasure.dir of all to one folder, or copy the file there from the machine that took the first request. Nothing is stored or loaded without it."},
	{"MR-ERA-002", "a key of erasures cannot be used", "Restore the named file in erasure.dir from a copy (32 bytes in base64, mode 0600). With a new subject.key nobody who was erased before is kept away any more."},
	{"MR-ERA-003", "subjects refused", "Every subject that is wrong is listed: a line is visitor:ID or user:ID, an id has at most 128 bytes."},
	{"MR-ERA-004", "no such request", "`millrace erase status` lists the requests; a certificate is there when the logical state is reached."},
	{"MR-ERA-005", "the certificate is not valid", "It was changed, or signed by another platform: compare the key in it with what `millrace erase key` prints there."},

	// API: analytics API
	{"MR-API-001", "request refused", "Every parameter that is wrong is listed with its bound; /openapi.json describes all of them."},
	{"MR-API-002", "range refused", "Ask for a shorter range, a coarser grain, or fewer series: at most 5,000 points and 50 series."},
	{"MR-API-003", "the API is busy", "More questions wait than may; ask again after the seconds in Retry-After. If it lasts, raise api.max_concurrent_queries or add an instance."},
	{"MR-API-004", "a store does not answer", "ClickHouse cannot be reached or refuses; `millrace status` and /api/v1/health say what is wrong. Ask again after the seconds in Retry-After."},
	{"MR-API-005", "the question is too large", "The query reached its limit of time, memory or rows. Ask for a shorter range, a coarser grain or fewer measures (visitors cost most), or raise the limits in the api section."},
	{"MR-API-006", "no such path", "The paths are in /openapi.json and docs/API.md."},
	{"MR-API-007", "method not allowed", "The API only reads: use GET."},
	{"MR-API-008", "the API failed", "This is a defect: report it with the request and the log line of its time."},

	// TRN: training of recommendations
	{"MR-TRN-001", "no version of the model is published", "TrainRecommendations publishes one once it is better than popularity; `millrace models list` shows what was trained and why it was not published."},
	{"MR-TRN-002", "the version cannot be served", "`millrace models show MODEL` lists the versions that are kept. One whose keys Redis has lost is written again by training with \"publish\": \"always\"."},

	// MOD: models
	{"MR-MOD-001", "a model file cannot be read", "The message names the line, byte or part of the file: it was cut off, changed by hand, or is no model. Save it again from LightGBM (save_model) or XGBoost (save_model to .json). The model before it stays in force."},
	{"MR-MOD-002", "a model uses what is not supported", "The message names it. Trees of LightGBM (text) and XGBoost (JSON) with one value a leaf are scored here; put other models behind a model server (docs/models.md)."},
	{"MR-MOD-003", "a model is larger than may be", "The message names the bound; docs/models.md lists them. Train with fewer trees or leaves, or use a model server."},
	{"MR-MOD-004", "features do not fit the model", "The model needs as many features as it was trained with, in the same order; what is not known is NaN. XGBoost takes nothing infinite or beyond a float32."},
	{"MR-MOD-005", "a model server does not answer as it should", "The reason is given with the fallback score and counted in millrace_model_server_requests_total. Look at the server's log and at its answer to GET /v1/models/NAME or /v2/models/NAME/ready."},
	{"MR-MOD-007", "rules ask a model that is not there", "The message says which version the rules name and which there is. Put the model's file where hot.model.path says, or correct `model` in the rules and apply them under a new version. The set before it stays in force."},
	{"MR-MOD-006", "configuration of a model server refused", "Every problem is listed with its field, value and bound; docs/models.md has an example for each protocol."},

	// ALT: alerts and where they go
	{"MR-ALT-001", "configuration of alert destinations refused", "Every problem is listed with its destination and field; docs/alerts.md has an example. Secrets are named as env:NAME or file:PATH, never written down."},
	{"MR-ALT-002", "a destination does not take alerts", "It is tried again with growing pauses, alone; the others go on and nothing is dropped while the topic holds it. Look at the status it answers and at millrace_alerts_oldest_undelivered_seconds."},
	{"MR-ALT-003", "a destination refuses an alert for good", "It answered with a status that no retry changes (400, 413, 422 …), so the alert was counted as refused and the next one follows. Compare the body with docs/alerts.md."},
	{"MR-ALT-004", "no such alert", "GET /api/v1/alerts lists what there is; an alert appears there within seconds of being raised."},

	// DEM: demand and stock
	{"MR-DEM-001", "nothing is known of the product", "Neither a sale nor a change of stock of it came in the last months. Check the product's id and the tenant; events name it in items[].item_id and, of stock, in item_id."},

	// REC: reconciliation
	{"MR-REC-001", "no place on a topic", "Name an offset as TOPIC/PARTITION@OFFSET, where the topic is raw.* or events.*: `millrace where raw.page/0@1234`."},
	{"MR-REC-002", "a store differs from the control totals", "The table says by how many rows and how; `millrace query \"SELECT * FROM reconcile_differences FINAL WHERE state != 'repaired'\"` names the offsets. With --repair what can be mended is; what no source holds any more (nosource) stays open until the rows are restored. docs/reconcile.md explains each kind."},

	// SIM: simulate and import
	{"MR-SIM-001", "options refused", "Every problem is listed with its option, value and bound; run the command with --help."},
	{"MR-SIM-002", "gateway does not answer", "Nothing was acknowledged for as long as --patience. See `millrace status`; what had been acknowledged is in the summary, what was under way counts as unacknowledged."},
	{"MR-SIM-003", "gateway refuses the events", "The answer is one that no retry changes. Check the URL given with --to and the write key (`write_key` in DIR/endpoints.json)."},
	{"MR-SIM-004", "ledger or rejects file cannot be written", "Check the path and the space left; the summary on standard output is complete nevertheless."},
	{"MR-SIM-005", "file cannot be imported", "NDJSON, CSV with a header row of native field names, and Parquet are read; the events before this point are in the summary."},

	// CLI: command line
	{"MR-CLI-001", "unknown command or flag", "Run the command with --help; the nearest spelling is suggested."},
	{"MR-CLI-003", "no platform has run on this data directory", "Start one with `millrace up --data DIR`, name the one it was started with, or configure the addresses."},
	{"MR-CLI-004", "the data directory cannot be used", "Name one that can be written with --data."},
	{"MR-CLI-002", "no such role", "`millrace run --help` lists the roles."},
	{"MR-CLI-005", "Temporal cannot be asked", "`millrace status` shows whether temporal is healthy (on a fresh machine it is built last, for some minutes); elsewhere set temporal.address and temporal.namespace."},
	{"MR-CLI-006", "no such workflow type", "docs/WORKFLOWS.md lists the types; the nearest spelling is suggested."},
	{"MR-CLI-007", "input of a workflow refused", "Every problem is listed with its field; docs/WORKFLOWS.md shows an example of each type that can be copied."},
	{"MR-CLI-008", "no such table", "`millrace tables` lists the tables; the nearest name is suggested."},
	{"MR-CLI-009", "a workflow did not succeed", "`millrace workflows show ID` shows its failure and a link to its history. Starting it again with the same input goes on where it ended."},
	{"MR-CLI-010", "no such workflow", "`millrace workflows list` shows the ids."},
	{"MR-CLI-011", "no batch worker answers", "`millrace status` shows the batch role, and its log in DIR/logs why it is not at work; elsewhere start one with `millrace run batch`."},
	{"MR-CLI-012", "a workflow refused an update", "The message says why; `millrace workflows progress ID` shows whether it is paused or has ended."},
	{"MR-CLI-013", "no such schedule", "`millrace schedules list` shows the ids; `millrace schedules apply` makes those that are missing."},

	// CFG: configuration
	{"MR-CFG-001", "configuration refused", "Every problem is listed with its key, value and bound; `millrace config print` shows the effective configuration, docs/CONFIG.md all keys."},
	{"MR-CFG-002", "a topic has another number of partitions", "N is one number per platform and is stored with the state. Set kafka.partitions to what the topics have, or start a new topic generation."},
	{"MR-CFG-003", "a topic is missing", "Create it as docs/operate.md lists it, or let the platform do so with kafka.create_topics: true."},
	{"MR-CFG-004", "an address cannot be listened on", "Another process has the port: choose another one, or end that process."},

	// RUL: rules of fraud
	{"MR-RUL-001", "a set of rules cannot be used", "Every problem is listed with its line and what to write instead; docs/fraud.md describes the language. The set before it stays in force."},
	{"MR-RUL-002", "a set of rules matches too much", "In the replay the named rules would have alerted for too large a part of the events. Raise their threshold, narrow where, or apply the set with --force if that is meant."},
	{"MR-RUL-003", "a set of rules is not newer", "Versions only rise, so that an alert says which rules raised it: give the file a version above the one in force (`millrace rules status`). To go back, apply the old rules under a new version."},

	// NIT: nights, and how Temporal is reached
	{"MR-NIT-001", "keys of Temporal payloads refused", "temporal.encryption_key_file names a file of mode 0600 with a line a key, id:base64 of 32 bytes (`openssl rand -base64 32`). The first encrypts; older ones stay below it until no history is older than they are."},
	{"MR-NIT-002", "a Temporal payload cannot be decrypted", "Put the named key back into temporal.encryption_key_file of every process, below the first one; without it the histories that it encrypted cannot be read, and their workflows cannot go on."},
	{"MR-NIT-003", "credentials of Temporal refused", "Check the files named by temporal.tls and temporal.api_key_file: that they are there, readable and PEM, or for the key one line."},
	{"MR-NIT-004", "too many nights at once", "Nights run one after the other. Ask for a shorter range, or raise --max if you know how long they take."},
	{"MR-NIT-005", "range of nights refused", "--from and --to are days such as 2026-10-22, both included; the last is at most yesterday, the first not after it."},
	{"MR-NIT-006", "nights have no schedule", "Set batch.nightly_every to 24h; the batch role then makes the schedule when it starts, `millrace schedules apply` at once."},
}
