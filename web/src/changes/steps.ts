// The steps of plans in Chinese. The server tells them in English, as sentences and
// not as codes; one that is not here is shown as it came.

export const stepsInChinese: Readonly<Record<string, string>> = {
  "change the image in the cloud": "在云端变更镜像",
  "read the notebook until it shows the image": "回读笔记本，直到显示新镜像",
  "stop the notebook, keeping what is in its file system": "停止笔记本，保留其文件系统中的内容",
  "make another notebook with the image": "用新镜像新建一个笔记本",
  "wait until it runs": "等待它运行",
  "stop it, as the old one is": "停止它，与旧笔记本一致",
  "give it the name of the old one": "改用旧笔记本的名称",
  "release the old one": "释放旧笔记本",
};
