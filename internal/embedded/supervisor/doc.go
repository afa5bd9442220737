// Package supervisor keeps a table of child processes running: started in
// dependency order, watched, restarted with backoff, held down on request, and
// ended with their parent however that dies. It stands beside the data flow: it
// starts what the events flow through and sees none of them.
//
// What a data folder needs lives in it: run/ (lock, pids, control socket), logs/
// and ports.json.
package supervisor
