package words

var chinese = map[string]string{}
