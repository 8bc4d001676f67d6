//go:build unix

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/twinbay/twinbay/simulator/blobs/azuritetest"
)

func TestExportAndImportCommands(t *testing.T) {
	store := azuritetest.Start(t)
	store.NewContainer("fleet")
	uri := store.SAS("fleet", "racwd", time.Now().Add(time.Hour))

	code, stdout, stderr := against(t, "export", "--container", uri, "--blob", "all.txt", "--wait")
	if code != 0 || !strings.Contains(stdout, `"status": "completed"`) || strings.Contains(stdout, "sig=") {
		t.Fatalf("export: exit code %d\n%s\n%s", code, stdout, stderr)
	}
	all, _ := store.Get("fleet", "all.txt")
	if !strings.Contains(all, `"id":"vending-1","moduleId":"climate"`) || !strings.Contains(all, `"interval_ms":2000`) {
		t.Errorf("the export is\n%s", all)
	}
	code, _, _ = against(t, "export", "--container", uri, "--exclude-keys")
	if code != 0 {
		t.Errorf("export without waiting: exit code %d", code)
	}

	store.Put("fleet", "devices.txt", []byte(`{"id":"spare","status":"enabled"}`+"\n"+`{"id":"nobody","importMode":"delete","status":"enabled"}`+"\n"))
	code, stdout, stderr = against(t, "import", "--container", uri, "--wait")
	if code != 0 || !strings.Contains(stdout, `"type": "import"`) || !strings.Contains(stdout, `"status": "completed"`) {
		t.Errorf("import: exit code %d\n%s\n%s", code, stdout, stderr)
	}
	if log, _ := store.Get("fleet", "importErrors.log"); !strings.HasPrefix(log, `{"deviceId":"nobody","errorCode":404001,`) {
		t.Errorf("importErrors.log is %q", log)
	}
	code, stdout, stderr = against(t, "import", "--container", uri, "--blob", "none.txt", "--wait")
	if code != 1 || !strings.Contains(stderr, "the import is failed") || !strings.Contains(stderr, "none.txt") {
		t.Errorf("import of nothing: exit code %d\n%s\n%s", code, stdout, stderr)
	}
	code, _, stderr = against(t, "export", "--container", store.SAS("fleet", "r", time.Now().Add(time.Hour)))
	if code != 1 || !strings.Contains(stderr, "BlobContainerValidationError") || strings.Contains(stderr, "sig=") {
		t.Errorf("export to a container that can't be written: exit code %d\n%s", code, stderr)
	}
}

func TestExportWantsAContainer(t *testing.T) {
	for _, command := range []string{"export", "import"} {
		if code, _, stderr := against(t, command); code != 2 || !strings.Contains(stderr, "--container") {
			t.Errorf("%s: exit code %d: %s", command, code, stderr)
		}
	}
}
