// Slots as robfig/cron gives them, which Kubernetes' CronJob controller asks.
//
// Each line of the input is a question: a zone, an expression, and from when until when, in seconds since 1970, with tabs
// between them. The answer is the slots after the first and not after the second time, or "hangs".
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// No search for one slot takes so long, however busy the machine is.
const limit = 20 * time.Second

func main() {
	in := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	for in.Scan() {
		slots, err := ask(in.Text())
		if err != nil {
			log.Fatalf("%q: %v", in.Text(), err)
		}
		for _, slot := range slots {
			fmt.Fprint(out, slot, " ")
		}
		fmt.Fprintln(out)
		if err := out.Flush(); err != nil {
			log.Fatal(err)
		}
	}
}

func ask(question string) ([]int64, error) {
	parts := strings.Split(question, "\t")
	if len(parts) != 4 {
		return nil, fmt.Errorf("%d parts", len(parts))
	}
	// As pkg/controller/cronjob does it (`formatSchedule` in utils.go).
	schedule, err := cron.ParseStandard("TZ=" + parts[0] + " " + parts[1])
	if err != nil {
		return nil, err
	}
	from, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil {
		return nil, err
	}
	until, err := strconv.ParseInt(parts[3], 10, 64)
	if err != nil {
		return nil, err
	}
	var slots []int64
	at := time.Unix(from, 0)
	// A search that does not end cannot be stopped; the process can.
	watchdog := time.AfterFunc(limit, func() {
		fmt.Println("hangs")
		os.Exit(0)
	})
	defer watchdog.Stop()
	for {
		watchdog.Reset(limit)
		next := schedule.Next(at)
		if next.IsZero() || next.Unix() > until {
			return slots, nil
		}
		if !next.After(at) {
			return nil, fmt.Errorf("after %v comes %v", at, next)
		}
		at = next
		slots = append(slots, at.Unix())
	}
}
