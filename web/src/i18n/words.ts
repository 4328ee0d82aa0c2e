// Words for what the API names: states, phases, reasons.

import { lang, messages, translator } from ".";
import type { KnownReason } from "../api/reasons";
import { common } from "./common";

const states = messages(
  {
    STATE_UNSPECIFIED: "unknown",
    STATE_CREATING: "creating",
    STATE_STARTING: "starting",
    STATE_RUNNING: "running",
    STATE_STOPPING: "stopping",
    STATE_STOPPED: "stopped",
    STATE_FAILED: "failed",
  },
  {
    STATE_UNSPECIFIED: "未知",
    STATE_CREATING: "创建中",
    STATE_STARTING: "启动中",
    STATE_RUNNING: "运行中",
    STATE_STOPPING: "停止中",
    STATE_STOPPED: "已停止",
    STATE_FAILED: "失败",
  },
);

const locationStates = messages(
  {
    STATE_UNSPECIFIED: "unknown",
    STATE_LIVE: "live",
    STATE_STALE: "stale",
    STATE_UNREACHABLE: "unreachable",
    STATE_DISABLED: "disabled",
  },
  {
    STATE_UNSPECIFIED: "未知",
    STATE_LIVE: "正常",
    STATE_STALE: "数据过时",
    STATE_UNREACHABLE: "不可达",
    STATE_DISABLED: "未开通",
  },
);

const phases = messages(
  {
    PHASE_PLANNED: "planned",
    PHASE_PENDING: "accepted, not sent yet",
    PHASE_STOPPING: "stopping the old notebook",
    PHASE_CREATING: "creating the new notebook",
    PHASE_VERIFYING: "verifying",
    PHASE_RENAMING: "renaming",
    PHASE_RELEASING: "releasing the old notebook",
    PHASE_SUCCEEDED: "succeeded",
    PHASE_UNCHANGED: "unchanged",
    PHASE_FAILED: "failed",
    PHASE_OUTCOME_UNKNOWN: "outcome unknown",
  },
  {
    PHASE_PLANNED: "仅计划",
    PHASE_PENDING: "已受理，尚未发送",
    PHASE_STOPPING: "正在停止旧笔记本实例",
    PHASE_CREATING: "正在创建新笔记本实例",
    PHASE_VERIFYING: "正在核对",
    PHASE_RENAMING: "正在重命名",
    PHASE_RELEASING: "正在释放旧笔记本实例",
    PHASE_SUCCEEDED: "成功",
    PHASE_UNCHANGED: "无需变更",
    PHASE_FAILED: "失败",
    PHASE_OUTCOME_UNKNOWN: "结果未知",
  },
);

// What happened and what to do, by ErrorReason.
const reasons = messages<KnownReason | "UNKNOWN" | "SERVER_LOST">(
  {
    UNKNOWN: "Something went wrong. Try again; if it lasts, tell whoever runs notebookd.",
    SERVER_LOST: "The server cannot be reached. Check the connection, and what stands between; it is tried again.",
    CIRCUIT_OPEN: "The cloud has failed too often and is left alone for a while; nothing was sent. Try again later.",
    CLOUD_UNAVAILABLE: "The cloud cannot be reached or cannot serve. Try again later.",
    CLOUD_TIMEOUT: "The cloud did not answer in time. Try again later.",
    CLOUD_RATE_LIMITED: "The cloud says that the account calls too often. Try again later.",
    CALL_BUDGET_SPENT: "The call budget of the account is spent. Try again later, or ask the operator for a larger one.",
    CLOUD_BAD_RESPONSE: "The cloud's answer could not be understood. Tell whoever runs notebookd.",
    CLOUD_CREDENTIALS_REJECTED: "The cloud refuses the credentials that notebookd has. The operator has to replace them.",
    CLOUD_REJECTED: "The cloud refused. Wait for another state of the notebook, or ask for something else.",
    OPERATION_NOT_SUPPORTED: "This cloud has no such operation.",
    LOCATION_DISABLED: "The account cannot use this location.",
    NOTEBOOK_NOT_FOUND: "There is no such notebook. It may have been deleted.",
    CLOUD_NOT_FOUND: "There is no such cloud or location.",
    WARNINGS_NOT_ACKNOWLEDGED: "The change has consequences that have to be accepted first.",
    ETAG_MISMATCH: "The notebook has changed meanwhile. Look at it again and plan anew.",
    CHANGE_IN_PROGRESS: "Another image change of this notebook is under way. Wait for its end.",
    REQUEST_ID_REUSED: "This request was made before with something else. Plan anew.",
    OUTCOME_UNKNOWN: "The request was sent, but what the cloud did is not known yet. It is being read back; send nothing else before.",
    IMAGE_NOT_FOUND: "The cloud has no such image for this location and kind.",
    RESUME_TOKEN_INVALID: "The stream cannot be continued and begins anew.",
    PAGE_TOKEN_INVALID: "The list has to be read from its beginning again.",
    FILTER_INVALID: "The filter cannot be understood.",
    INVALID_FIELD: "A field has a value that it must not have.",
    SLOW_READER: "This page was too slow for what it was told.",
    TOO_MANY_WATCHES: "Too many watches are open. Close other tabs.",
    STORE_UNAVAILABLE: "notebookd cannot read or write its store at the moment. Try again.",
    DRAINING: "The server is stopping. Another one takes over, or it comes back.",
    UNAUTHENTICATED: "You are not signed in, or not any more.",
    PERMISSION_DENIED: "You may not do this. Ask whoever runs notebookd for a role.",
    RATE_LIMITED: "You call too often. Try again in a moment.",
    INTERNAL: "A fault of notebookd itself. Tell whoever runs it what you did, and when.",
    CALLER_GONE: "The request took too long. Try again.",
    IMAGE_CHANGE_NOT_FOUND: "There is no such image change. They are kept for 90 days.",
    ISSUER_UNAVAILABLE: "Whoever issued your token cannot be asked at the moment. Try again.",
  },
  {
    UNKNOWN: "出错了。请重试；若持续出现，请联系 notebookd 的管理员。",
    SERVER_LOST: "无法连接服务器。请检查网络及中间的代理；系统会自动重试。",
    CIRCUIT_OPEN: "该云连续失败，熔断器已断开，暂不调用；请求没有发出。请稍后重试。",
    CLOUD_UNAVAILABLE: "该云无法访问或无法提供服务。请稍后重试。",
    CLOUD_TIMEOUT: "该云没有及时应答。请稍后重试。",
    CLOUD_RATE_LIMITED: "该云提示账号调用过于频繁。请稍后重试。",
    CALL_BUDGET_SPENT: "该账号的调用预算已用完。请稍后重试，或请管理员调大预算。",
    CLOUD_BAD_RESPONSE: "无法理解该云的应答。请联系 notebookd 的管理员。",
    CLOUD_CREDENTIALS_REJECTED: "该云拒绝了 notebookd 的密钥，需要管理员更换。",
    CLOUD_REJECTED: "该云拒绝了请求。请等笔记本实例进入其他状态，或换一种请求。",
    OPERATION_NOT_SUPPORTED: "该云不支持此操作。",
    LOCATION_DISABLED: "账号未开通此位置。",
    NOTEBOOK_NOT_FOUND: "没有这个笔记本实例，可能已被删除。",
    CLOUD_NOT_FOUND: "没有这个云或位置。",
    WARNINGS_NOT_ACKNOWLEDGED: "此变更有一些后果，需要先逐项确认。",
    ETAG_MISMATCH: "笔记本实例在此期间发生了变化。请重新查看并重新计划。",
    CHANGE_IN_PROGRESS: "这个笔记本实例正在进行另一次镜像变更，请等它结束。",
    REQUEST_ID_REUSED: "此请求 ID 已用于别的请求。请重新计划。",
    OUTCOME_UNKNOWN: "请求已发出，但还不知道云的处理结果，正在回读确认；在此之前请不要再发送其他变更。",
    IMAGE_NOT_FOUND: "该云在此位置没有这个类型的镜像。",
    RESUME_TOKEN_INVALID: "数据流无法续传，将重新开始。",
    PAGE_TOKEN_INVALID: "列表需要从头重新读取。",
    FILTER_INVALID: "无法理解这个过滤条件。",
    INVALID_FIELD: "某个字段的值不合法。",
    SLOW_READER: "页面读取太慢，跟不上数据。",
    TOO_MANY_WATCHES: "打开的监听太多。请关闭其他标签页。",
    STORE_UNAVAILABLE: "notebookd 暂时无法读写存储。请重试。",
    DRAINING: "服务器正在停止，会由其他副本接替或稍后恢复。",
    UNAUTHENTICATED: "您尚未登录，或登录已失效。",
    PERMISSION_DENIED: "您没有此权限。请向 notebookd 的管理员申请角色。",
    RATE_LIMITED: "调用过于频繁，请稍后再试。",
    INTERNAL: "notebookd 内部故障。请把操作内容和时间告诉管理员。",
    CALLER_GONE: "请求耗时过长。请重试。",
    IMAGE_CHANGE_NOT_FOUND: "没有这条镜像变更记录。记录保留 90 天。",
    ISSUER_UNAVAILABLE: "暂时无法向令牌的签发方核实。请重试。",
  },
);

function word(all: { en: Record<string, string>; zh: Record<string, string> }, name: string): string {
  return all[lang.value][name] ?? name;
}

export const stateWord = (state: string | undefined): string => word(states, state ?? "STATE_UNSPECIFIED");
export const locationStateWord = (state: string | undefined): string => word(locationStates, state ?? "STATE_UNSPECIFIED");
export const phaseWord = (phase: string | undefined): string => (phase ? word(phases, phase) : translator(common)("unknown"));
/** Words for a reason, with or without its prefix. */
export const reasonWord = (reason: string | undefined): string => {
  const name = (reason ?? "UNKNOWN").replace(/^ERROR_REASON_/, "");
  return reasons[lang.value][name as keyof typeof reasons.en] ?? name;
};
