// Texts of the example buttons. An empty instruction is the server's own.

export const EXAMPLES = [
  {
    label: "Web search",
    query: "What is the capital of China?",
    instruction: "",
    documents: [
      "Gravity is a force that attracts two bodies towards each other.",
      "Shanghai is the largest city of China.",
      "The capital of China is Beijing.",
      "The capital of France is Paris.",
      "A capital letter begins a sentence.",
    ],
  },
  {
    label: "Help desk",
    query: "how do I undo a commit in git?",
    instruction: "Given a question to a help desk, retrieve the article that answers it",
    documents: [
      "A blue whale is the largest animal that has ever lived.",
      "git branch makes a branch and lists all branches.",
      "git revert undoes a commit: it makes a new one that takes it back.",
      "Invoices are sent on the first day of the month.",
      "A remote is another copy of the repository.",
    ],
  },
  {
    label: "中文搜索",
    query: "中国的首都是哪里？",
    instruction: "",
    documents: [
      "万有引力使两个物体相互吸引。",
      "上海是中国最大的城市。",
      "中国的首都是北京。",
      "法国的首都是巴黎。",
    ],
  },
  {
    label: "中文客服",
    query: "怎么申请退款？",
    instruction: "",
    documents: [
      "我们的办公室位于杭州。",
      "在订单页面点击“申请退款”，三个工作日内到账。",
      "会员每月可以领取一张优惠券。",
      "密码可以在设置中修改。",
    ],
  },
];
