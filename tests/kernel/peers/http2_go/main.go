// SPDX-License-Identifier: Apache-2.0

// Command http2_go: Go's own server and client on loopback: HTTP/2 without TLS, or "http1" or "http2" within TLS, for
// which it begins with the first line that it is given. It prints its port and how many requests the server answered,
// by method and status, as JSON.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
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
	mode := strings.Join(os.Args[1:], "")
	protocols.SetUnencryptedHTTP2(mode == "")
	protocols.SetHTTP1(mode == "http1")
	protocols.SetHTTP2(mode == "http2")
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	})
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = protocols
	transport := &http.Transport{Protocols: protocols, MaxIdleConnsPerHost: clients}
	if mode == "" {
		server.Start()
	} else {
		bufio.NewReader(os.Stdin).ReadString('\n')
		server.EnableHTTP2 = mode == "http2"
		server.StartTLS()
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
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
				url := fmt.Sprintf("%s/%d", server.URL, statuses[n%len(statuses)])
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
	client.CloseIdleConnections()
	server.Close()
	json.NewEncoder(os.Stdout).Encode(map[string]any{"port": server.Listener.Addr().(*net.TCPAddr).Port, "counts": counts})
}
