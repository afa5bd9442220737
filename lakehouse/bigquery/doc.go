// Package bigquery loads the lake's published tables into BigQuery, once and whole. It stands behind the lake: workflow LoadBigQuery calls it after a table was
// published, and nothing reads from here but BigQuery's own users.
//
// The unit is a range (from, to] of snapshots. What it comes to is found by comparing the files of both: new rows are those behind the offsets of from; a day whose older
// rows have changed (repair, rollback, another program) is replaced as a whole; a rewrite changes no row and costs nothing. If from has expired, BigQuery's own sums by day
// stand in for it.
//
// Rows are gathered in a table of the work dataset by load jobs, and become visible by one transaction, which
//
//  1. fails unless the position of the table is the one that the plan was made for (its revision),
//  2. fails unless the staged rows are exactly the plan's: count and both sums of row_hash,
//  3. deletes the days that are replaced, inserts the staged rows,
//  4. writes the position: the snapshot, its offsets, revision + 1.
//
// So a range can become visible once, whole, or not at all, whatever becomes of jobs and processes; erasures raise the revision too, and a load that had read the ledger
// before is planned again. Everything else is about not doing work twice. Job ids follow from what a job loads; one that is there is not submitted again.
//
// Where a process or BigQuery itself may end, and what the next call finds:
//
//	ends                            | what is there                        | the next call
//	--------------------------------|--------------------------------------|----------------------------------------------------------
//	before or while tables are made | some of datasets, table, position    | makes the rest; each is made whole, by whoever is first
//	while it plans                  | nothing but a lease in the lake      | plans again; the lease is prolonged, or ends after a day
//	stage made, no job              | an empty stage                       | fills it; forgotten, it expires after three days
//	a load job sent, no answer      | the job, or not                      | looks for its id: takes its outcome, or sends it
//	load jobs done, some not        | some rows staged                     | the same ids: only what is missing is loaded
//	a job that never ends           | a job in state RUNNING for ever      | after job_timeout cancels it, then takes another id; if the
//	                                |                                      | old one has loaded after all, (2) fails and the stage is
//	                                |                                      | dropped and filled anew, under ids of its own
//	transaction sent, no answer     | committed, or not                    | looks for its id, then at the position: done, or sent again
//	two processes commit            | one position, two transactions       | (1) or the write conflict of (4) ends one; it finds the
//	                                |                                      | position moved and plans again: nothing is left to do
//	committed, lease not moved      | rows visible, from still held        | finds the range done, holds to
//	lease moved, stage not dropped  | a stage that nobody needs            | it expires
package bigquery
