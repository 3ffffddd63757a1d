// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fakeCommand is a ceph on the PATH that answers like Ceph 18.2, and writes what it was asked.
func fakeCommand(t *testing.T, out, said string, code int) string {
	t.Helper()
	folder := t.TempDir()
	asked := filepath.Join(folder, "asked")
	script := "#!/bin/sh\necho \"$CEPH_KEYRING $*\" >>%[1]s/asked\ncat %[1]s/out\ncat %[1]s/said >&2\nexit %[2]d\n"
	for name, text := range map[string]string{"out": out, "said": said, "ceph": fmt.Sprintf(script, folder, code)} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", folder+":"+os.Getenv("PATH"))
	return asked
}

var (
	ceph = command{"client.volumes", "/etc/ceph/volumes.keyring"}
	pvc1 = volume{"shared", "kubernetes", "pvc-1"}
)

func TestWhatCephSaysOfAVolume(t *testing.T) {
	for title, c := range map[string]struct {
		out  string
		want details
	}{
		"a volume": {`{"bytes_quota": 1073741824, "path": "/a", "state": "complete", "type": "subvolume"}`, details{"/a", 1 << 30, false, false}},
		"a copy":   {`{"bytes_quota": "infinite", "path": "/a", "state": "complete", "type": "clone"}`, details{"/a", 0, true, false}},
		"deleted":  {`{"features": [], "state": "snapshot-retained", "type": "subvolume"}`, details{"", 0, false, true}},
	} {
		asked := fakeCommand(t, "\n"+c.out, "", 0)
		if got, err := ceph.Details(t.Context(), pvc1); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", title, got, err)
		}
		words, _ := os.ReadFile(asked)
		want := "/etc/ceph/volumes.keyring --connect-timeout 20 --name client.volumes --format json " +
			"fs subvolume info shared pvc-1 --group_name kubernetes\n"
		if string(words) != want {
			t.Errorf("%s", words)
		}
	}
}

func TestErrorsOfCephAreFoundAmongItsWarnings(t *testing.T) {
	warning := "2026-12-01T00:27:23.022+0000 7f34 -1 auth: unable to find a keyring: (2) No such file or directory\n"
	for said, want := range map[string]error{
		"Error ENOENT: subvolume 'pvc-1' does not exist":       syscall.ENOENT,
		"Error EAGAIN: subvolume \"pvc-1\" is not ready":       syscall.EAGAIN,
		"Error EACCES: access denied: does your client key...": syscall.EACCES,
	} {
		fakeCommand(t, "", warning+said+"\n", 2)
		_, err := ceph.Details(t.Context(), pvc1)
		_, what, _ := strings.Cut(said, ": ")
		if !errors.Is(err, want) || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), "keyring:") {
			t.Errorf("%s: %v", said, err)
		}
	}
	fakeCommand(t, "", "RADOS timed out (error connecting to the cluster)\n", 1)
	if _, err := ceph.Details(t.Context(), pvc1); err == nil || !strings.Contains(err.Error(), "RADOS timed out") {
		t.Error(err)
	}
	fakeCommand(t, "no json", "", 0)
	if _, err := ceph.Details(t.Context(), pvc1); err == nil || !strings.Contains(err.Error(), "fs subvolume info shared pvc-1") {
		t.Error(err)
	}
}

func TestAVolumeHasANamespaceOfItsOwn(t *testing.T) {
	asked := fakeCommand(t, "", "", 0)
	if err := ceph.Create(t.Context(), pvc1, unit); err != nil {
		t.Fatal(err)
	}
	words, _ := os.ReadFile(asked)
	if !strings.Contains(string(words), "create shared pvc-1 --group_name kubernetes --size 4194304 --namespace-isolated") {
		t.Fatalf("%s", words)
	}
}

func TestWhoMayUseAVolume(t *testing.T) {
	fakeCommand(t, `[{"node1:kubernetes:pvc-1": "rw"}, {"backup": "r"}]`, "", 0)
	users, err := ceph.Users(t.Context(), pvc1)
	if err != nil || len(users) != 2 || users["node1:kubernetes:pvc-1"] != "rw" || users["backup"] != "r" {
		t.Fatal(users, err)
	}
}

func TestAKeyIsInNoError(t *testing.T) {
	fakeCommand(t, `{"key":"SECRET"}`, "Error EACCES: access denied\n", 13)
	if key, err := ceph.Key(t.Context(), "client.x"); err == nil || strings.Contains(err.Error(), "SECRET") || key != "" {
		t.Fatal(key, err)
	}
	fakeCommand(t, `{"key":"SECRET"}`, "", 0)
	if key, err := ceph.Key(t.Context(), "client.x"); err != nil || key != "SECRET" {
		t.Fatal(key, err)
	}
}

func TestWhatIsGivenToSystemdIsPlain(t *testing.T) {
	asked := fakeCommand(t, "", "", 0)
	if err := os.Symlink(filepath.Join(filepath.Dir(asked), "ceph"), filepath.Join(filepath.Dir(asked), "systemctl")); err != nil {
		t.Fatal(err)
	}
	runtime := t.TempDir()
	here := units{runtime}
	m := mount{"client.node1:kubernetes:pvc-1", "SECRET", "shared", "/volumes/a", "/var/lib/kubelet/plugins/kubernetes.io/csi/x/globalmount"}
	if err := here.Start(t.Context(), "a", m); err != nil {
		t.Fatal(err)
	}
	words, _ := os.ReadFile(asked)
	if !strings.HasSuffix(string(words), "start ceph-volume@a.service\n") {
		t.Fatalf("%s", words)
	}
	for _, file := range []string{"settings", "keyring", "key"} {
		if info, err := os.Stat(filepath.Join(runtime, "a", file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatal(file, info, err)
		}
	}
	settings, _ := os.ReadFile(filepath.Join(runtime, "a", "settings"))
	if strings.Contains(string(settings), "SECRET") || !strings.Contains(string(settings), "VOLUME_FOLDER=/volumes/a\n") {
		t.Fatalf("%s", settings)
	}
	m.folder = "/volumes/a\nVOLUME_TARGET=/etc"
	if err := here.Start(t.Context(), "a", m); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Fatal(err)
	}
	for range 2 {
		if err := here.Forget("a"); err != nil {
			t.Fatal(err)
		}
	}
	// systemd reads the settings again when the unit ends.
	if left, err := filepath.Glob(filepath.Join(runtime, "a", "*")); err != nil || len(left) != 1 || filepath.Base(left[0]) != "settings" {
		t.Fatal(left, err)
	}
	if err := here.Discard("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(runtime, "a")); !os.IsNotExist(err) {
		t.Fatal(err)
	}
}
