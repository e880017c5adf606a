// Command longhorn-tool drives Longhorn's own backupstore code for backing images on a local folder.
//
// It is a test helper. Drover writes and reads backups in Longhorn's format; its tests prove that in
// both directions: what Drover wrote, this tool (and so Longhorn) must restore, list, inspect and
// delete, and what this tool wrote, Drover must. Nothing of the format is written down here: blocks,
// configs and locks are all made and read by the module github.com/longhorn/backupstore. Only the vfs
// driver (vfs:///absolute/path) is linked in.
//
//	longhorn-tool backup  --file F --name N --target URL [--compression lz4|gzip|none] [--concurrency 2]
//	longhorn-tool restore --url URL?backingImage=N --file F [--concurrency 2]
//	longhorn-tool list    --target URL
//	longhorn-tool inspect --url URL?backingImage=N
//	longhorn-tool delete  --url URL?backingImage=N
//	longhorn-tool lock    --target URL --type backup|delete --hold SECONDS
//
// The result is one JSON value on stdout. An error is one line on stderr and exit code 1 (2 for a
// wrong command line). LONGHORN_TOOL_LOG=info shows Longhorn's log on stderr.
package main

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/longhorn/backupstore"
	"github.com/longhorn/backupstore/backupbackingimage"
	"github.com/longhorn/backupstore/common"
	"github.com/longhorn/backupstore/types"
	"github.com/longhorn/backupstore/util"
	_ "github.com/longhorn/backupstore/vfs"
	"github.com/sirupsen/logrus"
)

const blockSize = backupstore.DEFAULT_BLOCK_SIZE

func main() {
	logrus.SetLevel(logrus.PanicLevel)
	if level, err := logrus.ParseLevel(os.Getenv("LONGHORN_TOOL_LOG")); err == nil {
		logrus.SetLevel(level)
	}
	if len(os.Args) < 2 {
		usage("no command")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	file := flags.String("file", "", "image file")
	name := flags.String("name", "", "name of the backing image")
	target := flags.String("target", "", "URL of the backup target")
	url := flags.String("url", "", "URL of the backup")
	compression := flags.String("compression", "lz4", "lz4, gzip or none")
	concurrency := flags.Int("concurrency", 2, "number of workers")
	lockType := flags.String("type", "", "backup or delete")
	hold := flags.Float64("hold", 0, "seconds to hold the lock")
	_ = flags.Parse(os.Args[2:]) // ExitOnError: it does not return an error

	need := func(values ...string) {
		for _, value := range values {
			if value == "" {
				usage("an option is missing")
			}
		}
		if *concurrency < 1 {
			usage("--concurrency must be 1 or more") // Longhorn would wait forever
		}
	}

	var result any
	var err error
	switch os.Args[1] {
	case "backup":
		need(*file, *name, *target)
		result, err = backup(*file, *name, *target, *compression, *concurrency)
	case "restore":
		need(*url, *file)
		result, err = restore(*url, *file, *concurrency)
	case "list":
		need(*target)
		result, err = list(*target)
	case "inspect":
		need(*url)
		result, err = backupbackingimage.InspectBackupBackingImage(*url)
	case "delete":
		need(*url)
		result, err = map[string]any{"deleted": true}, backupbackingimage.RemoveBackingImageBackup(*url)
	case "lock":
		need(*target, *lockType)
		result, err = lock(*target, *lockType, time.Duration(*hold*float64(time.Second)))
	default:
		usage("unknown command " + os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "longhorn-tool:", err)
		os.Exit(1)
	}
	print(result)
}

func usage(problem string) {
	fmt.Fprintln(os.Stderr, "longhorn-tool:", problem+"; commands: backup restore list inspect delete lock")
	os.Exit(2)
}

func print(value any) {
	_ = json.NewEncoder(os.Stdout).Encode(value)
}

// operation is what Longhorn calls back while it works: it serves both of its interfaces,
// BackupOperation (all three methods) and RestoreOperation (the last one).
type operation struct {
	file *os.File

	mutex    sync.Mutex
	closed   bool // Longhorn is done with the file of a backup
	finished bool // ... and told that the backup is complete
	err      error
}

func (o *operation) ReadFile(start int64, data []byte) error {
	_, err := o.file.ReadAt(data, start)
	return err
}

func (o *operation) CloseFile() {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	o.closed = true
}

func (o *operation) UpdateBackupProgress(_ string, progress int, url string, problem string) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	if problem != "" {
		o.err = errors.New(problem)
	}
	if progress == common.ProgressPercentageBackupTotal && url != "" {
		o.finished = true
	}
}

func (o *operation) UpdateRestoreProgress(_ int, err error) {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	if err != nil {
		o.err = err
	}
}

// settle waits for the work that Longhorn goes on with after its call has returned. Longhorn tells
// when a backup's file is closed but not when the lock is gone, and for a restore nothing at all that
// is sure to be last. So wait until every goroutine that the call started has ended. After an error
// Longhorn may leave one of them blocked for good: then a short wait has to do for the lock's removal.
func (o *operation) settle(goroutines int) error {
	var deadline time.Time
	for runtime.NumGoroutine() > goroutines {
		o.mutex.Lock()
		failed := o.err != nil
		o.mutex.Unlock()
		if failed && deadline.IsZero() {
			deadline = time.Now().Add(2 * time.Second)
		}
		if failed && time.Now().After(deadline) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.err
}

// scan reads the image once, for its checksum and for the ranges to back up: one for each block that
// is not all zero bytes, the last one shorter where the file ends.
func scan(file *os.File) (size int64, checksum string, mappings *common.Mappings, err error) {
	mappings = &common.Mappings{BlockSize: blockSize}
	hash := sha512.New()
	block, zeros := make([]byte, blockSize), make([]byte, blockSize)
	for {
		n, err := io.ReadFull(file, block)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return 0, "", nil, err
		}
		hash.Write(block[:n])
		if !bytes.Equal(block[:n], zeros[:n]) {
			mappings.Mappings = append(mappings.Mappings, common.Mapping{Offset: size, Size: int64(n)})
		}
		size += int64(n)
		if n < blockSize {
			return size, hex.EncodeToString(hash.Sum(nil)), mappings, nil
		}
	}
}

func backup(path, name, target, compression string, concurrency int) (any, error) {
	switch compression {
	case "lz4", "gzip", "none":
	default:
		usage("--compression must be lz4, gzip or none") // Longhorn notices only when it has a block to store
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, checksum, mappings, err := scan(file)
	if err != nil {
		return nil, err
	}
	config := &backupbackingimage.BackupConfig{Name: name, DestURL: target, ConcurrentLimit: int32(concurrency)}
	image := &backupbackingimage.BackupBackingImage{
		Name: name, Size: size, Checksum: checksum, CompressionMethod: compression, CreatedTime: util.Now(),
	}
	work := &operation{file: file}
	before := runtime.NumGoroutine()
	if err := backupbackingimage.CreateBackingImageBackup(config, image, work, mappings); err != nil {
		return nil, err
	}
	if err := work.settle(before); err != nil {
		return nil, err
	}
	if work.closed && !work.finished {
		return nil, errors.New("the backup ended without a result")
	}
	// Longhorn closes the file after every backup it made; when a config of that name is there (be it
	// a complete one or not), it makes none, calls that a success and leaves the file alone.
	return map[string]any{
		"url":     backupbackingimage.EncodeBackupBackingImageURL(name, target),
		"size":    size,
		"blocks":  len(mappings.Mappings),
		"existed": !work.closed,
	}, nil
}

func restore(url, path string, concurrency int) (any, error) {
	config := &backupbackingimage.RestoreConfig{BackupURL: url, Filename: path, ConcurrentLimit: int32(concurrency)}
	work := &operation{}
	before := runtime.NumGoroutine()
	if err := backupbackingimage.RestoreBackingImageBackup(config, work); err != nil {
		return nil, err
	}
	if err := work.settle(before); err != nil {
		return nil, err
	}
	stat, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return map[string]any{"file": path, "size": stat.Size()}, nil
}

func list(target string) (any, error) {
	driver, err := backupstore.GetBackupStoreDriver(target)
	if err != nil {
		return nil, err
	}
	names, err := backupbackingimage.GetAllBackupBackingImageNames(driver)
	if names == nil {
		names = []string{} // [] in JSON, not null
	}
	return names, err
}

// lock takes the lock that all backing images of a target share, as the operations above do, holds it
// for a while or until SIGINT or SIGTERM, and removes it.
func lock(target, kind string, hold time.Duration) (any, error) {
	lockTypes := map[string]backupstore.LockType{"backup": backupstore.BACKUP_LOCK, "delete": backupstore.DELETION_LOCK}
	lockType, known := lockTypes[kind]
	if !known {
		usage("--type must be backup or delete")
	}
	driver, err := backupstore.GetBackupStoreDriver(target)
	if err != nil {
		return nil, err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	held, err := backupstore.New(driver, types.BackupBackingImageLockName, lockType)
	if err != nil {
		return nil, err
	}
	if err := held.Lock(); err != nil {
		return nil, err
	}
	print(map[string]any{"locked": true, "name": held.Name, "type": held.Type})
	select {
	case <-time.After(hold):
	case <-stop:
	}
	return map[string]any{"locked": false}, held.Unlock()
}
