// Server is notebookd: one gRPC and REST API over the GPU notebooks of several
// AI clouds.
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
	_ "time/tzdata" // time zones of the configuration need no files of the system

	"github.com/notebookd/notebookd/web/sentences"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// A command does something else than serve. It returns the exit code.
type command func(ctx context.Context, args []string, stdout, stderr io.Writer) int

// commandNamed returns the command that a first argument names, or nil.
func commandNamed(name string) command {
	switch name {
	case "healthcheck":
		return healthcheck
	case "token":
		return newToken
	default:
		return nil
	}
}

// help is what the command line is, in one language.
type help struct{ usage, config, version, check, unknown, fine string }

var (
	helpInEnglish = help{
		usage: `usage:
  server [flags]               serve
  server healthcheck [flags]   ask the server that runs whether it is ready
  server token [flags]         make a static token, and its entry for auth.tokens_file

flags:
`,
		config:  "configuration `file`; without it two simulated clouds are started in process",
		version: "print the version and exit",
		check:   "check the configuration and exit",
		unknown: "server: no command %q\n",
		fine:    "configuration ok: %[1]s\n",
	}
	helpInChinese = help{
		usage: `用法：
  server [选项]               启动服务器
  server healthcheck [选项]   询问正在运行的服务器是否就绪
  server token [选项]         生成静态令牌，以及写入 auth.tokens_file 的条目

选项：
`,
		config:  "配置`文件`；不指定时在进程内启动两个模拟云",
		version: "显示版本后退出",
		check:   "检查配置后退出",
		unknown: "server：没有命令 %q\n",
		fine:    "配置无误：%[2]d 个云\n",
	}
)

// saidOf is an error in the language of who starts the server.
func saidOf(err error, chinese bool) string {
	if !chinese {
		return err.Error()
	}
	if problems, ok := errors.AsType[*configError](err); ok {
		return problems.Chinese()
	}
	return sentences.Starting(err.Error())
}

// flagsOutput is where package flag says what is wrong with a command line.
func flagsOutput(w io.Writer, chinese bool) io.Writer {
	if chinese {
		return sentences.Flags(w)
	}
	return w
}

// run is main with its surroundings given. It returns the exit code: 0, 1 when
// the server failed, 2 when the command line or the configuration is wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		if do := commandNamed(args[0]); do != nil {
			return do(ctx, args[1:], stdout, stderr)
		}
	}
	chinese := sentences.Wanted(os.Getenv)
	say := helpInEnglish
	if chinese {
		say = helpInChinese
	}
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	flags.SetOutput(flagsOutput(stderr, chinese))
	flags.Usage = func() {
		_, _ = fmt.Fprint(stderr, say.usage)
		flags.PrintDefaults()
	}
	file := flags.String("config", "", say.config)
	tell := flags.Bool("version", false, say.version)
	check := flags.Bool("check-config", false, say.check)
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		_, _ = fmt.Fprintf(stderr, say.unknown, flags.Arg(0))
		flags.Usage()
		return 2
	}
	if *tell {
		_, _ = fmt.Fprintln(stdout, buildInfo())
		return 0
	}
	cfg, err := loadConfig(*file)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, saidOf(err, chinese))
		return 2
	}
	if *check {
		_, _ = fmt.Fprintf(stdout, say.fine, counted(len(cfg.Clouds), "cloud"), len(cfg.Clouds))
		return 0
	}
	if err := serve(ctx, cfg, stdout, stderr); err != nil {
		_, _ = fmt.Fprintln(stderr, "notebookd:", saidOf(err, chinese))
		return 1
	}
	return 0
}
