// Cloudsim runs the simulated clouds by themselves, for rehearsals against a
// server that was started with the configuration that it prints.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/notebookd/notebookd/internal/upstream/cloudsim"
	"github.com/notebookd/notebookd/web/sentences"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// words are what the program says, in one language.
type words struct {
	port, seed, notebooks, coreshub, pace, file string
	wrong, up, next, configuration              string
}

var (
	inEnglish = words{
		port:          "`port` of the control endpoint on 127.0.0.1; the clouds have the ones that follow; 0 takes free ones",
		seed:          "`seed` of the story",
		notebooks:     "`number` of notebooks in each location, about",
		coreshub:      "`number` of them in each location of CoresHub; 0: as -notebooks says",
		pace:          "`time` between two steps of the story; 0s: nothing happens by itself",
		file:          "write a configuration for the server to this `file`, instead of showing it",
		wrong:         "cloudsim: -port must be from 0 to 65000, the numbers of notebooks from 0 to 1000000, -pace not negative, and nothing else is taken",
		up:            "Simulated clouds are up. Faults and settings: %s\n",
		next:          "Now run: bin/server --config %s\n",
		configuration: "Configuration for the server:\n\n%s",
	}
	inChinese = words{
		port:          "控制接口在 127.0.0.1 上的`端口`，各个云用其后的端口；0 表示任取空闲端口",
		seed:          "情节的随机`种子`",
		notebooks:     "每个位置的笔记本实例`数`（大约）",
		coreshub:      "CoresHub 每个位置的笔记本实例`数`；0 表示与 -notebooks 相同",
		pace:          "情节每一步的间隔`时间`；0s 表示不自行变化",
		file:          "把服务器的配置写入该`文件`，而不是显示出来",
		wrong:         "cloudsim：-port 必须在 0 到 65000 之间，笔记本实例数在 0 到 1000000 之间，-pace 不得为负，此外不接受其他参数",
		up:            "模拟云已启动。故障与设置：%s\n",
		next:          "接着运行：bin/server --config %s\n",
		configuration: "服务器的配置：\n\n%s",
	}
)

// run is main with its surroundings given. It returns the exit code: 0, 1 when
// the clouds could not be served, 2 when the command line is wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	say := inEnglish
	flags := flag.NewFlagSet("cloudsim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	said := error.Error
	if sentences.Wanted(os.Getenv) {
		say = inChinese
		flags.SetOutput(sentences.Flags(stderr))
		said = func(err error) string { return sentences.Starting(err.Error()) }
	}
	port := flags.Int("port", 7070, say.port)
	seed := flags.Uint64("seed", 1, say.seed)
	notebooks := flags.Int("notebooks", 8, say.notebooks)
	coreshub := flags.Int("coreshub-notebooks", 0, say.coreshub)
	pace := flags.Duration("pace", 3*time.Second, say.pace)
	file := flags.String("write-config", "", say.file)
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 || *port < 0 || *port > 65000 || *notebooks < 0 || *notebooks > 1_000_000 || *coreshub < 0 || *coreshub > 1_000_000 || *pace < 0 {
		_, _ = fmt.Fprintln(stderr, say.wrong)
		return 2
	}
	fleet, err := cloudsim.Start(cloudsim.Config{Port: *port, Seed: *seed, Notebooks: *notebooks, CoresHubNotebooks: *coreshub, Pace: *pace})
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "cloudsim:", said(err))
		return 1
	}
	defer fleet.Close()
	_, _ = fmt.Fprintf(stdout, say.up, fleet.ControlURL())
	if *file != "" {
		if err := os.WriteFile(*file, []byte(fleet.ServerConfig()), 0o600); err != nil {
			_, _ = fmt.Fprintln(stderr, "cloudsim:", said(err))
			return 1
		}
		_, _ = fmt.Fprintf(stdout, say.next, *file)
	} else {
		_, _ = fmt.Fprintf(stdout, say.configuration, fleet.ServerConfig())
	}
	<-ctx.Done()
	return 0
}
