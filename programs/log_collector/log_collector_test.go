// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSecretsAreMasked(t *testing.T) {
	m, err := newMasks([]maskSettings{{Name: "ours", Pattern: `(\bash_)[a-z0-9]{8,}`, Replacement: "${1}xxx"}})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"GET / Authorization: Bearer abc.DEF-123 done":                               "GET / Authorization: *** done",
		`{"Authorization":"Basic dXNlcjpwYXNz","a":1}`:                               `{"Authorization":"***","a":1}`,
		`curl -H 'authorization: token ghx' url`:                                     `curl -H 'authorization: ***' url`,
		"using bearer 0123456789abcdef":                                              "using bearer ***",
		"password=hunter2 user=a":                                                    "password=*** user=a",
		`"db_password": "hun ter\"2", "x": 1`:                                        `"db_password": ***, "x": 1`,
		`{\"password\":\"hunter2\",\"x\":1}`:                                         `{\"password\":***,\"x\":1}`,
		"PGPASSWORD='a b' psql":                                                      "PGPASSWORD=*** psql",
		"mysql --password hunter2 -h db":                                             "mysql --password *** -h db",
		"X-Consul-Token: 6d8c1f0e-9a55-4f0e-8d3a-4c6b0d0c1b11":                       "X-Consul-Token: ***",
		"SecretID:  6d8c1f0e-9a55-4f0e-8d3a-4c6b0d0c1b11":                            "SecretID:  ***",
		"postgres://app:hunter2@db:5432/x":                                           "postgres://app:***@db:5432/x",
		"jwt eyJhbGciOi.eyJzdWIiOi.c2ln end":                                         "jwt *** end",
		"key AKIAIOSFODNN7EXAMPLE used":                                              "key *** used",
		"kubeadm join --token abcdef.0123456789abcdef":                               "kubeadm join --token ***",
		"our ash_0123456789 token":                                                   "our ash_xxx token",
		"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- after": "*** after",
		// What only looks like one stays.
		"the password is wrong":                        "the password is wrong",
		"token expired, tokens left 5":                 "token expired, tokens left 5",
		"pod 6d8c1f0e-9a55-4f0e-8d3a-4c6b0d0c1b11 ran": "pod 6d8c1f0e-9a55-4f0e-8d3a-4c6b0d0c1b11 ran",
		"http://db:5432/x@y":                           "http://db:5432/x@y",
		strings.Repeat("0a", 32):                       strings.Repeat("0a", 32),
	} {
		state := keyState(0)
		got, masked := m.apply([]byte(text), &state)
		if string(got) != want || masked != (text != want) {
			t.Errorf("%q gives %q (%v), expected %q", text, got, masked, want)
		}
	}
}

func TestAPrivateKeyOfManyLinesIsMasked(t *testing.T) {
	m, _ := newMasks(nil)
	var state keyState
	body := "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
	for _, line := range []string{"-----BEGIN PRIVATE KEY-----", body, "shortTail==", "-----END PRIVATE KEY-----"} {
		got, _ := m.apply([]byte(line), &state)
		if bytes.Contains(got, []byte("MIIE")) || bytes.Contains(got, []byte("shortTail")) {
			t.Errorf("%q is still in %q", line, got)
		}
	}
	if got, masked := m.apply([]byte("shortTail=="), &state); masked {
		t.Errorf("after the key %q is masked", got)
	}
	// Its beginning may have been read by a run that ended.
	state = 0
	if got, masked := m.apply([]byte(body), &state); !masked {
		t.Errorf("a line of a key is %q", got)
	}
}

func TestPatternsOfOthersAreChecked(t *testing.T) {
	for _, pattern := range []string{"(", "a*", `(?=x)`} {
		if _, err := newMasks([]maskSettings{{Name: "odd", Pattern: pattern}}); err == nil || !strings.Contains(err.Error(), "odd") {
			t.Errorf("%q gives %v", pattern, err)
		}
	}
}

func TestLevels(t *testing.T) {
	for text, want := range map[string]string{
		"E1121 10:00:00.1 1 main.go:1] x": "error", "I1121 10:00:00.1 1 main.go:1] ERROR": "info", `{"ts":1,"level":"warn"}`: "warning", "time=x level=debug msg=y": "debug",
		"2026-11-21 ERROR something": "error", "[error] 12#12: x": "error", "nothing of the kind": "", "an error in small letters": "", "INFO[0001] x": "info", "": "",
	} {
		if got := levelOf([]byte(text)); got != want {
			t.Errorf("%q is %q, expected %q", text, got, want)
		}
	}
}

func TestLinesAreJSONWhateverIsInThem(t *testing.T) {
	from := &source{head: field(nil, "node", "n\"1")}
	for text, want := range map[string]string{
		"plain":                      "plain",
		"a\"b\\c\td\r":               "a\"b\\c\td",
		"\x1b[31mred\x1b[0m":         "red",
		"x\x00\x01\xff\xfey":         "x\ufffdy",
		"grüße \u2603":               "grüße \u2603",
		"":                           " ",
		strings.Repeat("\xff", 5000): "\ufffd",
	} {
		var got map[string]string
		if err := json.Unmarshal(encode(nil, from, line{nanoseconds: 5, text: []byte(text)}, 1<<20), &got); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if got["_msg"] != want || got["node"] != `n"1` || got["_time"] != "5" {
			t.Errorf("%q gives %v", text, got)
		}
	}
	var got map[string]string
	json.Unmarshal(encode(nil, from, line{text: []byte(strings.Repeat("x", 3000)), cut: 5}, 1000), &got)
	if len(got["_msg"]) != 1000 || got["cut_bytes"] != "2005" {
		t.Errorf("a long line has %d bytes and lacks %s", len(got["_msg"]), got["cut_bytes"])
	}
}

func TestABurstPassesAndAFloodIsCounted(t *testing.T) {
	var g guard
	now := time.Unix(1000, 0)
	limit := limitSettings{LinesPerSecond: 100, Burst: 1000}
	passed := 0
	for range 3000 {
		if g.take(limit, 80, now) {
			passed++
		}
	}
	if passed != 1000 || g.dropped != 2000 {
		t.Fatalf("%d passed, %d dropped", passed, g.dropped)
	}
	if g.due(now.Add(time.Second)) != 0 || g.due(now.Add(11*time.Second)) != 2000 || g.due(now.Add(30*time.Second)) != 0 {
		t.Error("what was dropped is told once, some time after")
	}
	if !g.take(limit, 80, now.Add(time.Second)) {
		t.Error("it fills again")
	}
}

func TestEntriesOfTheJournal(t *testing.T) {
	var text bytes.Buffer
	text.WriteString("__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1700000000000001\nPRIORITY=3\n_SYSTEMD_UNIT=etcd.service\nMESSAGE=one = two\n\n")
	text.WriteString("__CURSOR=c2\nMESSAGE\n")
	binary.Write(&text, binary.LittleEndian, uint64(8))
	text.WriteString("a\nb\x00=\n\nz\nUNIT=x.service\n_SYSTEMD_UNIT=init.scope\n\n")
	text.WriteString("__CURSOR=c3\nMESSAGE=" + strings.Repeat("y", 200000) + "\nOTHER=" + strings.Repeat("z", 200000) + "\n_TRANSPORT=kernel\n\n")
	reader := bufio.NewReaderSize(&text, 1<<12)
	var e entry
	if err := readEntry(reader, &e, 1<<20); err != nil || e.cursor != "s=1;i=2" || e.priority != 3 || string(e.message) != "one = two" || e.label() != "etcd.service" || e.microseconds != 1700000000000001 {
		t.Fatalf("%v %+v", err, e)
	}
	if err := readEntry(reader, &e, 1<<20); err != nil || e.cursor != "c2" || string(e.message) != "a\nb\x00=\n\nz" || e.label() != "x.service" {
		t.Fatalf("%v %+v %q", err, e, e.message)
	}
	if err := readEntry(reader, &e, 1000); err != nil || len(e.message) != 1000 || e.cut != 199000 || e.key() != "kernel" {
		t.Fatalf("%v %d %d %s", err, len(e.message), e.cut, e.key())
	}
	if err := readEntry(reader, &e, 1000); err != io.EOF {
		t.Fatal(err)
	}
	for unit, want := range map[string]string{
		"ssh.service": "ssh.service", "session-12.scope": "session.scope", "user@0.service": "user@.service", "run-r1f.service": "run.service",
		"cri-containerd-0a1b.scope": "cri-containerd.scope", "ssh@1-10.0.0.1:22-10.0.0.2:5.service": "ssh@.service", "run": "run",
	} {
		if got := general(unit); got != want {
			t.Errorf("%s is %s, expected %s", unit, got, want)
		}
	}
}

func TestUnitsBelongToComponents(t *testing.T) {
	node := nodeSettings{Units: map[string]string{"consul.service": "consul", "haproxy.service": "haproxy", "haproxy-ingress.service": "haproxy_ingress", "sshd.socket": "base"}}
	for unit, want := range map[string]string{
		"consul.service": "consul", "consul-snapshot.timer": "consul", "haproxy-ingress-proxy.service": "haproxy_ingress", "haproxy.service": "haproxy", "sshd.socket": "base",
		"consul-template-x.service": "consul", "cron.service": "", "kernel": "", "": "",
	} {
		if got := node.component(unit); got != want {
			t.Errorf("%q is of %q, expected %q", unit, got, want)
		}
	}
}

// place is a collector with a spool in a folder of its own, and stores that take what it sends.
type place struct {
	t      *testing.T
	root   string
	stores []*fake
	most   int64
	settle time.Duration
}

// fake is a store that can be down, and can forget what it took last.
type fake struct {
	*httptest.Server
	lock     sync.Mutex
	lines    []map[string]string
	durable  int
	down     bool
	instance string
}

func newFake(t *testing.T) *fake {
	f := &fake{instance: "1"}
	f.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.lock.Lock()
		defer f.lock.Unlock()
		if f.down {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set(instanceHeader, f.instance)
		if r.Method == http.MethodGet {
			return
		}
		unpacked, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		scanner := bufio.NewScanner(unpacked)
		scanner.Buffer(nil, 1<<24)
		for scanner.Scan() {
			var one map[string]string
			if err := json.Unmarshal(scanner.Bytes(), &one); err != nil {
				t.Errorf("%v: %s", err, scanner.Text())
			}
			f.lines = append(f.lines, one)
		}
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) messages() (found []string) {
	f.lock.Lock()
	defer f.lock.Unlock()
	for _, one := range f.lines {
		found = append(found, one["_msg"])
	}
	return
}

// crash has the store lose what it took since the last time, and be another process.
func (f *fake) crash() {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.lines = f.lines[:f.durable]
	f.instance += "x"
}

func newPlace(t *testing.T, stores int) *place {
	p := &place{t: t, root: t.TempDir(), most: 1 << 30, settle: 300 * time.Millisecond}
	for range stores {
		p.stores = append(p.stores, newFake(t))
	}
	os.MkdirAll(filepath.Join(p.root, "pods"), 0o755)
	return p
}

// run reads and sends until what it gives is called, which is as kind as kill -9 unless it is told to be gentle.
func (p *place) run() (end func()) {
	p.t.Helper()
	directory := filepath.Join(p.root, "state", "stores")
	os.MkdirAll(directory, 0o700)
	spool, err := openSpool(filepath.Join(p.root, "state", "spool"), p.most)
	if err != nil {
		p.t.Fatal(err)
	}
	masks, _ := newMasks(nil)
	lines := newCollector(masks, limitSettings{1e6, 1e6}, 1<<20, spool, &figures{})
	reader := newFiles(filepath.Join(p.root, "pods"), lines, nodeSettings{Site: "s", Class: "control", Name: "n"}, spool.read())
	var stores []*store
	for place, one := range p.stores {
		os.MkdirAll(filepath.Join(directory, fmt.Sprint(place)), 0o700)
		authority := filepath.Join(p.root, fmt.Sprintf("ca%d.crt", place))
		os.WriteFile(authority, pemOf(one.Certificate().Raw), 0o600)
		made, err := openStore(storeSettings{Name: "example.com", Address: one.Listener.Addr().String(), Authority: authority}, spool, filepath.Join(directory, fmt.Sprint(place)), p.settle)
		if err != nil {
			p.t.Fatal(err)
		}
		stores = append(stores, made)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stop := make(chan struct{})
	var all sync.WaitGroup
	for _, one := range stores {
		all.Go(func() { one.send(ctx) })
	}
	all.Go(func() { reader.follow(ctx.Done()) })
	all.Go(func() { spool.keep(stop, func() int64 { return settled(stores) }, func(int) {}) })
	go lines.turn(stop)
	return func() {
		cancel()
		// What was read and is not in the spool is lost to this run, as by kill -9.
		lines.lock.Lock()
		lines.text, lines.lines, lines.changed = nil, 0, positions{}
		lines.lock.Unlock()
		close(stop)
		all.Wait()
	}
}

func (p *place) write(pod string, name string, text string) {
	p.t.Helper()
	path := filepath.Join(p.root, "pods", "default_"+pod+"_uid", "main", name)
	os.MkdirAll(filepath.Dir(path), 0o755)
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		p.t.Fatal(err)
	}
	defer file.Close()
	file.WriteString(text)
}

func cri(stream, tag, text string) string {
	return time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z") + " " + stream + " " + tag + " " + text + "\n"
}

func (p *place) until(what string, ready func() bool) {
	p.t.Helper()
	for range 200 {
		if ready() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.t.Fatalf("not within ten seconds: %s", what)
}

func unique(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

func TestPiecesBecomeLinesAndRotationLosesNone(t *testing.T) {
	p := newPlace(t, 1)
	end := p.run()
	defer end()
	p.write("web", "0.log", cri("stdout", "P", "one ")+cri("stderr", "F", "E1121 other")+cri("stdout", "F", "line"))
	p.until("both streams", func() bool { return slices.Equal(unique(p.stores[0].messages()), []string{"E1121 other", "one line"}) })
	first := p.stores[0].lines[0]
	for key, want := range map[string]string{"namespace": "default", "pod": "web", "container": "main", "node": "n", "site": "s", "class": "control", "stream": "stderr", "level": "error"} {
		if first[key] != want {
			t.Errorf("%s is %q, expected %q", key, first[key], want)
		}
	}
	directory := filepath.Join(p.root, "pods", "default_web_uid", "main")
	for round := range 3 {
		p.write("web", "0.log", cri("stdout", "F", fmt.Sprintf("before %d", round)))
		os.Rename(filepath.Join(directory, "0.log"), filepath.Join(directory, fmt.Sprintf("0.log.20261121-10000%d", round)))
		p.write("web", fmt.Sprintf("0.log.20261121-10000%d", round), cri("stdout", "F", fmt.Sprintf("late %d", round)))
		p.write("web", "0.log", cri("stdout", "F", fmt.Sprintf("after %d", round)))
	}
	p.until("all of the rotated files", func() bool { return len(p.stores[0].messages()) == 11 })
	if got := unique(p.stores[0].messages()); len(got) != 11 {
		t.Errorf("lines came twice: %v", p.stores[0].messages())
	}
}

func TestNothingIsLostWhenTheCollectorIsKilled(t *testing.T) {
	p := newPlace(t, 1)
	written := 0
	for range 8 {
		end := p.run()
		for range 400 {
			p.write("web", "0.log", cri("stdout", "F", fmt.Sprintf("line %d", written)))
			written++
		}
		time.Sleep(150 * time.Millisecond)
		end()
	}
	end := p.run()
	defer end()
	p.until("all lines", func() bool { return len(unique(p.stores[0].messages())) == written })
	t.Logf("%d of %d lines came twice", len(p.stores[0].messages())-written, written)
}

func TestAStoreThatIsDownGetsEverythingLaterAndDelaysNobody(t *testing.T) {
	p := newPlace(t, 2)
	p.stores[1].down = true
	end := p.run()
	for number := range 500 {
		p.write("web", "0.log", cri("stdout", "F", fmt.Sprintf("line %d", number)))
	}
	p.until("the other store has all", func() bool { return len(p.stores[0].messages()) == 500 })
	end()
	os.RemoveAll(filepath.Join(p.root, "pods", "default_web_uid"))
	end = p.run()
	defer end()
	p.stores[1].lock.Lock()
	p.stores[1].down = false
	p.stores[1].lock.Unlock()
	p.until("the store has all, though the pod is gone", func() bool { return len(p.stores[1].messages()) == 500 })
}

func TestWhatAKilledStoreHadNotWrittenIsSentAgain(t *testing.T) {
	p := newPlace(t, 1)
	end := p.run()
	defer end()
	p.write("web", "0.log", cri("stdout", "F", "old"))
	p.until("the first line", func() bool { return len(p.stores[0].messages()) == 1 })
	p.stores[0].durable = 1
	time.Sleep(1500 * time.Millisecond)
	p.write("web", "0.log", cri("stdout", "F", "young"))
	p.until("the second line", func() bool { return len(p.stores[0].messages()) == 2 })
	p.stores[0].crash()
	p.until("the second line again, and only it", func() bool { return slices.Equal(p.stores[0].messages(), []string{"old", "young"}) })
	p.write("web", "0.log", cri("stdout", "F", "new"))
	p.until("it goes on", func() bool { return slices.Equal(p.stores[0].messages(), []string{"old", "young", "new"}) })
}

func TestACollectorThatIsKilledRemembersWhatAKilledStoreLacks(t *testing.T) {
	p := newPlace(t, 1)
	p.settle = time.Hour
	end := p.run()
	var written []string
	for number := range 6 {
		text := fmt.Sprintf("young %d", number)
		written = append(written, text)
		p.write("web", "0.log", cri("stdout", "F", text))
		p.until(text, func() bool { return len(p.stores[0].messages()) == len(written) })
	}
	end()
	p.stores[0].crash()
	for number := range 6 {
		text := fmt.Sprintf("new %d", number)
		written = append(written, text)
		p.write("web", "0.log", cri("stdout", "F", text))
		end = p.run()
		time.Sleep(time.Duration(250+20*number) * time.Millisecond)
		end()
	}
	end = p.run()
	defer end()
	p.until("all lines", func() bool { return len(unique(p.stores[0].messages())) == len(written) })
}

func TestAFullSpoolLosesItsOldestLinesAndSaysHowMany(t *testing.T) {
	spool, err := openSpool(t.TempDir(), 3*fileLength)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if err := spool.add(10, positions{"journal": {Cursor: "c"}}, make([]byte, fileLength/8)); err != nil {
			t.Fatal(err)
		}
	}
	lost := spool.clear(0)
	first, end, _ := spool.bounds()
	if end-first > 3*fileLength || lost != 320 {
		t.Errorf("%d bytes are left, %d lines were lost", end-first, lost)
	}
	again, err := openSpool(spool.directory, spool.most)
	if err != nil || again.end != end || again.read()["journal"].Cursor != "c" {
		t.Errorf("%v %d %d", err, again.end, end)
	}
}

func TestARecordThatWasBeingWrittenIsReadAgain(t *testing.T) {
	spool, _ := openSpool(t.TempDir(), 1<<30)
	spool.add(1, positions{"a": {Offset: 1}}, []byte("one"))
	spool.add(1, positions{"a": {Offset: 2}}, []byte("two"))
	_, end, _ := spool.bounds()
	os.Truncate(spool.path(0), end-1)
	again, err := openSpool(spool.directory, 1<<30)
	if err != nil || again.read()["a"].Offset != 1 || again.end >= end {
		t.Fatalf("%v %+v", err, again.read())
	}
	again.add(1, positions{"a": {Offset: 3}}, []byte("new"))
	reader := holder{spool: again}
	_, batch, next, err := reader.get(0, nil)
	if err != nil || string(batch) != "one" {
		t.Fatal(err, string(batch))
	}
	if _, batch, _, err = reader.get(next, nil); err != nil || string(batch) != "new" {
		t.Fatal(err, string(batch))
	}
}

func BenchmarkLines(b *testing.B) {
	spool, _ := openSpool(b.TempDir(), 1<<26)
	masks, _ := newMasks(nil)
	c := newCollector(masks, limitSettings{1e9, 1e9}, 1<<20, spool, &figures{})
	from := c.source("x", func() *source { return &source{head: field(nil, "node", "node1"), level: "info"} })
	b.SetBytes(120)
	for number := range b.N {
		c.add(from, line{nanoseconds: int64(number), text: fmt.Appendf(nil, "10.0.0.%d GET /index.html?x=%d HTTP/1.1 200 512 \"Mozilla/5.0 (X11; Linux x86_64)\" 0.00%d upstream=app", number%256, number, number%10)}, "f", &position{Offset: int64(number)})
	}
}

func pemOf(raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}
