// SPDX-License-Identifier: Apache-2.0

// Command http2_go: Go's own HTTP/2 server and client on loopback, without TLS. It prints its port and how many
// requests the server answered, by method and status, as JSON.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
)

const clients, requests = 13, 307

func main() {
	var lock sync.Mutex
	counts := map[string]int{}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		io.Copy(io.Discard, r.Body)
		lock.Lock()
		counts[fmt.Sprintf("%s %d", r.Method, status)]++
		lock.Unlock()
		w.Header().Set("X-Number", r.Header.Get("X-Number"))
		w.WriteHeader(status)
		if status != 204 && status != 304 {
			fmt.Fprint(w, strings.Repeat("x", status))
		}
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go server.Serve(listener)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	methods := []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"}
	statuses := []int{200, 201, 204, 302, 304, 404, 418, 500, 503}
	var all sync.WaitGroup
	for c := 0; c < clients; c++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for n := 0; n < requests; n++ {
				url := fmt.Sprintf("http://%s/%d", listener.Addr(), statuses[n%len(statuses)])
				request, _ := http.NewRequest(methods[(n+c)%len(methods)], url, strings.NewReader(strings.Repeat("q", n)))
				request.Header.Set("X-Number", strconv.Itoa(n))
				answer, err := client.Do(request)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
			}
		}()
	}
	all.Wait()
	json.NewEncoder(os.Stdout).Encode(map[string]any{"port": listener.Addr().(*net.TCPAddr).Port, "counts": counts})
}
