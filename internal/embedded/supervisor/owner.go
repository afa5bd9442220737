package supervisor

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// portOwner names the process that listens on a port, as far as /proc tells us.
func portOwner(port int) string {
	inode := listenerInode(port)
	if inode == "" {
		return ""
	}
	target := "socket:[" + inode + "]"
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, link := range links {
		// Other users' processes cannot be read; then the owner stays unknown.
		if to, err := os.Readlink(link); err != nil || to != target {
			continue
		}
		pid := strings.Split(link, "/")[2]
		cmdline, err := os.ReadFile("/proc/" + pid + "/cmdline")
		if err != nil {
			return "process " + pid
		}
		words := strings.Fields(string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		return fmt.Sprintf("process %s (%s)", pid, strings.Join(words[:min(len(words), 4)], " "))
	}
	return ""
}

// listenerInode finds the socket that listens on the port, whatever address it is bound to.
func listenerInode(port int) string {
	const listening = "0A"
	suffix := fmt.Sprintf(":%04X", port)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) > 9 && fields[3] == listening && strings.HasSuffix(fields[1], suffix) {
				_ = f.Close() // read only
				return fields[9]
			}
		}
		_ = f.Close() // read only
	}
	return ""
}
