package words

import (
	"strings"

	notebookv1 "github.com/notebookd/notebookd/gen/notebook/v1"
	"github.com/notebookd/notebookd/web/sentences"
)

// text is the same in both languages.
type text struct{ en, zh string }

func (t text) in(l Language) string { return l.Pick(t.en, t.zh) }

// reasonText is what a reason means and what to do.
type reasonText struct{ means, do text }

// reasons has all that the contract has; a test compares.
var reasons = map[notebookv1.ErrorReason]reasonText{
	notebookv1.ErrorReason_ERROR_REASON_CIRCUIT_OPEN: {
		text{"The circuit breaker of the cloud is open, since its calls kept failing; nothing was sent.", "该云的调用连续失败，熔断器已断开；没有发出任何请求。"},
		text{"Try again later; `notebookctl clouds` shows when the next call is let through.", "请稍后再试；用 `notebookctl clouds` 查看何时放行下一次调用。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_CLOUD_UNAVAILABLE: {
		text{"The cloud cannot be reached or cannot serve.", "无法连接该云，或该云暂时不能提供服务。"},
		text{"Try again later; `notebookctl clouds` shows how the cloud does.", "请稍后再试；用 `notebookctl clouds` 查看各云状态。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_CLOUD_TIMEOUT: {
		text{"The cloud did not answer in time.", "该云未在规定时间内应答。"},
		text{"Try again later.", "请稍后再试。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_CLOUD_RATE_LIMITED: {
		text{"The cloud says that the account calls too often.", "该云提示账号调用过于频繁。"},
		text{"Try again later. If it comes often, ask the operator of notebookd what else uses the account.", "请稍后再试。如果经常出现，请向 notebookd 管理员了解还有谁在使用该账号。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_CALL_BUDGET_SPENT: {
		text{"notebookd's own call budget for the account is spent; nothing was sent.", "notebookd 为该账号设定的调用预算已用完；没有发出任何请求。"},
		text{"Try again later. If it comes often, ask the operator of notebookd for a larger budget.", "请稍后再试。如果经常出现，请联系 notebookd 管理员提高预算。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_CLOUD_BAD_RESPONSE: {
		text{"The cloud's answer could not be understood.", "无法理解该云的应答。"},
		text{"Tell the operator of notebookd; its log says more.", "请联系 notebookd 管理员；服务端日志中有详细信息。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_CLOUD_CREDENTIALS_REJECTED: {
		text{"The cloud refuses the credentials that notebookd is configured with. It is not your fault.", "该云拒绝了 notebookd 所配置的凭据，并非您的操作有误。"},
		text{"Ask the operator of notebookd for other credentials of the account.", "请联系 notebookd 管理员更换该账号的凭据。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_CLOUD_REJECTED: {
		text{"The cloud refused the operation.", "该云拒绝了此操作。"},
		text{"If the notebook is starting, stopping or being made, wait until that has ended; otherwise ask for something else, or show this to the operator of notebookd.", "如果笔记本实例正在启动、停止或创建，请等其结束；否则请调整请求，或把以上信息告知 notebookd 管理员。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_OPERATION_NOT_SUPPORTED: {
		text{"The cloud, or this version of notebookd, cannot do that.", "该云或当前版本的 notebookd 不支持此操作。"},
		text{"Trying again does not help; `notebookctl clouds CLOUD` shows what a cloud can do.", "重试无效；用 `notebookctl clouds CLOUD` 查看该云支持的操作。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_LOCATION_DISABLED: {
		text{"The account cannot use this location.", "该账号不能使用此位置。"},
		text{"Use another location, or have this one enabled for the account.", "请使用其他位置，或为账号开通此位置。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_NOTEBOOK_NOT_FOUND: {
		text{"There is no such notebook.", "没有这个笔记本实例。"},
		text{"Look it up with `notebookctl list`; it may have been deleted.", "请用 `notebookctl list` 查找；它可能已被删除。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_CLOUD_NOT_FOUND: {
		text{"There is no such cloud or location.", "没有这个云或位置。"},
		text{"Look it up with `notebookctl clouds`.", "请用 `notebookctl clouds` 查找。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_WARNINGS_NOT_ACKNOWLEDGED: {
		text{"The change has consequences that nobody has agreed to.", "此变更会带来尚未确认的后果。"},
		text{"Decide whether they are acceptable, and if so, name them with --yes.", "请判断是否可以接受；可以的话，用 --yes 逐一写明。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_ETAG_MISMATCH: {
		text{"The notebook has changed since it was read.", "读取之后，笔记本实例已发生变化。"},
		text{"Look at it again, and repeat the command if you still want it.", "请重新查看，仍需要时再执行一次命令。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_CHANGE_IN_PROGRESS: {
		text{"Another image change of the notebook is under way.", "该笔记本实例正在进行另一个镜像变更。"},
		text{"Wait for its end.", "请等待其结束。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_REQUEST_ID_REUSED: {
		text{"The request id was used with other arguments.", "该请求 ID 已用于不同的参数。"},
		text{"Leave --request-id out: a new one is made.", "请去掉 --request-id，将自动生成新的 ID。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_OUTCOME_UNKNOWN: {
		text{"The change was sent, but whether the cloud did it is not known yet.", "变更请求已发出，但云端是否执行尚不明确。"},
		text{"notebookd keeps reading until it is known. Follow the change, and send no other before.", "notebookd 会持续核对直到有结果。请跟踪此变更，在此之前不要再发起其他变更。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_IMAGE_NOT_FOUND: {
		text{"The cloud has no such image.", "该云没有这个镜像。"},
		text{"Name an image that the cloud has for this location, account and kind of image.", "请指定该位置、账号和镜像类型下存在的镜像。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_RESUME_TOKEN_INVALID: {
		text{"The resume token does not fit.", "续传令牌无效。"},
		text{"Begin the watch again.", "请重新开始监听。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_PAGE_TOKEN_INVALID: {
		text{"The page token does not fit any more.", "分页令牌已失效。"},
		text{"Run the command again.", "请重新执行命令。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_FILTER_INVALID: {
		text{"The filter or the order cannot be understood.", "无法理解过滤条件或排序。"},
		text{"Correct it; `notebookctl list --help` shows examples.", "请改正；`notebookctl list --help` 中有示例。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_INVALID_FIELD: {
		text{"Something in the request has a value that it must not have.", "请求中有不允许的值。"},
		text{"Correct it.", "请改正。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_SLOW_READER: {
		text{"The watch was read too slowly.", "监听的读取速度过慢。"},
		text{"Read faster, or watch less.", "请加快读取，或缩小监听范围。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_TOO_MANY_WATCHES: {
		text{"You have too many watches open.", "您打开的监听过多。"},
		text{"End some of them.", "请先结束一些。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE: {
		text{"notebookd cannot write or read its log; nothing was sent.", "notebookd 无法读写自身的日志存储；没有发出任何请求。"},
		text{"Try again later. If it lasts, tell the operator of notebookd.", "请稍后再试。如果持续出现，请联系 notebookd 管理员。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_DRAINING: {
		text{"The server is stopping.", "服务器正在停止。"},
		text{"Try again.", "请重试。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_UNAUTHENTICATED: {
		text{"notebookd does not know who you are: no credentials were sent, or they are not accepted, or not any more.", "notebookd 无法识别您的身份：没有提供凭据，或凭据不被接受、已失效。"},
		text{"Name a token or a client certificate: --token-file, --cert and --key, NOTEBOOKCTL_TOKEN, or `notebookctl context set`. The same credentials will be refused again.", "请提供令牌或客户端证书：--token-file、--cert 和 --key、NOTEBOOKCTL_TOKEN，或 `notebookctl context set`。同样的凭据会再次被拒绝。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_PERMISSION_DENIED: {
		text{"You may not do this, whether what you name exists or not.", "您没有权限执行此操作（无论所指对象是否存在）。"},
		text{"Ask the operator of notebookd for a role there.", "请联系 notebookd 管理员授予相应角色。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_RATE_LIMITED: {
		text{"You call notebookd too often, or have too many calls open.", "您调用 notebookd 过于频繁，或同时进行的调用过多。"},
		text{"Try again later, and less often.", "请稍后再试，并降低频率。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_INTERNAL: {
		text{"A fault of notebookd itself.", "notebookd 自身出现故障。"},
		text{"Tell the operator of notebookd what you did and when; its log has the details.", "请把操作内容和时间告知 notebookd 管理员；服务端日志中有详细信息。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_CALLER_GONE: {
		text{"The time for the call was over before the answer was there.", "在得到应答之前，调用时限已到。"},
		text{"Allow more time with --timeout.", "请用 --timeout 延长时限。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_IMAGE_CHANGE_NOT_FOUND: {
		text{"There is no such image change; they are kept for 90 days.", "没有这个镜像变更；变更记录保留 90 天。"},
		text{"Look it up with `notebookctl history`.", "请用 `notebookctl history` 查找。"},
	},
	notebookv1.ErrorReason_ERROR_REASON_ISSUER_UNAVAILABLE: {
		text{"Whether your token is good cannot be checked: its issuer cannot be asked.", "无法验证您的令牌：令牌签发方暂时无法访问。"},
		text{"Try again later. If it lasts, tell the operator of notebookd; your token may be fine.", "请稍后再试。如果持续出现，请联系 notebookd 管理员；令牌本身可能没有问题。"},
	},
}

// Reason returns what a reason means and what to do; nothing for one of a newer
// server.
func (l Language) Reason(r notebookv1.ErrorReason) (means, do string) {
	t := reasons[r]
	return t.means.in(l), t.do.in(l)
}

var warnings = map[string]text{
	"NOTEBOOK_RUNNING":        {"The notebook is not stopped: unsaved work in it, and what its processes hold in memory, may be lost, or the cloud may refuse.", "笔记本实例尚未停止：未保存的工作和进程内存中的内容可能丢失，云端也可能拒绝。"},
	"NOTEBOOK_ID_CHANGES":     {"The cloud cannot change an image: another notebook is made, with another id, and the old one is released.", "该云不能直接变更镜像：将创建一个 ID 不同的新笔记本实例，并释放旧实例。"},
	"CONTAINER_DATA_LOST":     {"What is in the file system of the old notebook, outside of its mounts, is lost.", "旧笔记本实例文件系统中挂载目录以外的数据将丢失。"},
	"ADDRESSES_CHANGE":        {"Addresses, ports and passwords of the notebook change, and its own service has to be started again.", "笔记本实例的地址、端口和密码将改变，其自定义服务需要重新启动。"},
	"MOUNTS_NOT_RESTORED":     {"Only the home directory is mounted again: the cloud does not tell what else was mounted.", "只会重新挂载主目录：该云不提供其他挂载信息。"},
	"ACCELERATOR_MAY_BE_LOST": {"The new notebook needs free accelerators. If there are none, the change fails, and the old one is started again, if it can be.", "新笔记本实例需要空闲的加速卡；如果不足，变更失败，并尽可能重新启动旧实例。"},
}

// WarningCodes are the codes of all consequences that are known, in the order in
// which the contract has them.
func WarningCodes() []string {
	return []string{"NOTEBOOK_RUNNING", "NOTEBOOK_ID_CHANGES", "CONTAINER_DATA_LOST", "ADDRESSES_CHANGE", "MOUNTS_NOT_RESTORED", "ACCELERATOR_MAY_BE_LOST"}
}

// Warning returns a consequence in words. The server's own are more exact, and all there
// is for a code of a newer one.
func (l Language) Warning(w *notebookv1.ImageChange_Warning) string {
	return l.Why(l.Consequence(w.GetCode()), w.GetMessage())
}

// Consequence returns a consequence in words by its code alone.
func (l Language) Consequence(code string) string { return warnings[code].in(l) }

// Said returns what a server says in words of its own, such as a step of a plan; in
// Chinese where that is known.
func (l Language) Said(english string) string {
	if l == Chinese {
		return sentences.Of(english)
	}
	return english
}

// Reported is what the system, or a library, says of a connection or a file.
func (l Language) Reported(english string) string {
	if l == English {
		return english
	}
	if zh := sentences.Starting(english); zh != english {
		return zh
	}
	return "系统报告：" + english
}

// Why says why something is so: in the server's words, which are more exact than what
// the reason means, but may have no translation.
func (l Language) Why(means, english string) string {
	switch _, known := sentences.Chinese(english); {
	case english == "":
		return means
	case means == "" || known || l == English:
		return l.Said(english)
	default:
		return means + "（" + english + "）"
	}
}

var states = map[notebookv1.Notebook_State]text{
	notebookv1.Notebook_STATE_UNSPECIFIED: {"unknown", "未知"},
	notebookv1.Notebook_STATE_CREATING:    {"creating", "创建中"},
	notebookv1.Notebook_STATE_STARTING:    {"starting", "启动中"},
	notebookv1.Notebook_STATE_RUNNING:     {"running", "运行中"},
	notebookv1.Notebook_STATE_STOPPING:    {"stopping", "停止中"},
	notebookv1.Notebook_STATE_STOPPED:     {"stopped", "已停止"},
	notebookv1.Notebook_STATE_FAILED:      {"failed", "失败"},
}

// State returns the state of a notebook in a word.
func (l Language) State(s notebookv1.Notebook_State) string {
	if t, ok := states[s]; ok {
		return t.in(l)
	}
	return s.String()
}

var locationStates = map[notebookv1.Location_State]text{
	notebookv1.Location_STATE_UNSPECIFIED: {"unknown", "未知"},
	notebookv1.Location_STATE_LIVE:        {"live", "正常"},
	notebookv1.Location_STATE_STALE:       {"stale", "过时"},
	notebookv1.Location_STATE_UNREACHABLE: {"unreachable", "不可达"},
	notebookv1.Location_STATE_DISABLED:    {"disabled", "未开通"},
}

// LocationState returns the state of a location in a word.
func (l Language) LocationState(s notebookv1.Location_State) string {
	if t, ok := locationStates[s]; ok {
		return t.in(l)
	}
	return s.String()
}

var phases = map[notebookv1.ImageChange_Phase]text{
	notebookv1.ImageChange_PHASE_UNSPECIFIED:     {"unknown", "未知"},
	notebookv1.ImageChange_PHASE_PLANNED:         {"planned", "仅计划"},
	notebookv1.ImageChange_PHASE_PENDING:         {"accepted", "已受理"},
	notebookv1.ImageChange_PHASE_STOPPING:        {"stopping the old notebook", "正在停止旧实例"},
	notebookv1.ImageChange_PHASE_CREATING:        {"creating the new notebook", "正在创建新实例"},
	notebookv1.ImageChange_PHASE_VERIFYING:       {"verifying", "正在核对"},
	notebookv1.ImageChange_PHASE_RENAMING:        {"renaming", "正在重命名"},
	notebookv1.ImageChange_PHASE_RELEASING:       {"releasing the old notebook", "正在释放旧实例"},
	notebookv1.ImageChange_PHASE_SUCCEEDED:       {"succeeded", "成功"},
	notebookv1.ImageChange_PHASE_UNCHANGED:       {"unchanged", "无需变更"},
	notebookv1.ImageChange_PHASE_FAILED:          {"failed", "失败"},
	notebookv1.ImageChange_PHASE_OUTCOME_UNKNOWN: {"outcome unknown", "结果未知"},
}

// Phase returns how far a change has come, in words.
func (l Language) Phase(p notebookv1.ImageChange_Phase) string {
	if t, ok := phases[p]; ok {
		return t.in(l)
	}
	return p.String()
}

var capabilities = map[notebookv1.Cloud_Capability]text{
	notebookv1.Cloud_CAPABILITY_UNSPECIFIED:           {"unknown", "未知"},
	notebookv1.Cloud_CAPABILITY_CHANGE_IMAGE_IN_PLACE: {"changes the image of a notebook in place", "可直接更换笔记本实例的镜像"},
	notebookv1.Cloud_CAPABILITY_CHANGE_IMAGE_RECREATE: {"changes an image by making a new notebook and releasing the old one", "通过新建实例并释放旧实例来变更镜像"},
	notebookv1.Cloud_CAPABILITY_REGISTRY_CREDENTIAL:   {"takes a login for a private registry", "支持私有镜像仓库登录"},
}

// Capability returns what a cloud can do, in words.
func (l Language) Capability(c notebookv1.Cloud_Capability) string {
	if t, ok := capabilities[c]; ok {
		return t.in(l)
	}
	return c.String()
}

var operations = map[notebookv1.Breaker_Operation]text{
	notebookv1.Breaker_OPERATION_UNSPECIFIED: {"unknown", "未知"},
	notebookv1.Breaker_OPERATION_READ:        {"reading", "读取"},
	notebookv1.Breaker_OPERATION_WRITE:       {"changing", "变更"},
	notebookv1.Breaker_OPERATION_LOGIN:       {"login", "登录"},
}

var breakers = map[notebookv1.Breaker_State]text{
	notebookv1.Breaker_STATE_UNSPECIFIED: {"unknown", "未知"},
	notebookv1.Breaker_STATE_CLOSED:      {"closed", "闭合"},
	notebookv1.Breaker_STATE_OPEN:        {"open", "断开"},
	notebookv1.Breaker_STATE_HALF_OPEN:   {"half-open", "半开"},
}

// Breaker returns what a circuit breaker guards and its state, in words.
func (l Language) Breaker(b *notebookv1.Breaker) (operation, state string) {
	operation, state = b.GetOperation().String(), b.GetState().String()
	if t, ok := operations[b.GetOperation()]; ok {
		operation = t.in(l)
	}
	if t, ok := breakers[b.GetState()]; ok {
		state = t.in(l)
	}
	return operation, state
}

// Short returns the name of an enum's value without its prefix.
func Short(name, prefix string) string { return strings.TrimPrefix(name, prefix) }

// ParseReason returns the reason that an ErrorInfo names.
func ParseReason(name string) notebookv1.ErrorReason {
	return notebookv1.ErrorReason(notebookv1.ErrorReason_value["ERROR_REASON_"+name])
}
