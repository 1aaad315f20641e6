"""One word typed in more than one way: without accents, in traditional characters, in British
English, short for a side; "L4/L5" and "L4-5". Each is read in one of them; no two words with two
meanings become one.
"""

import re

from gateway.contract import Language

UNACCENTED = str.maketrans("áéíóú", "aeiou")  # ñ is another letter

# Characters that stand in medical questions and answers, each beside its simplified one. Left out
# are those of which two words would become one (髒, 髮, 乾).
TRADITIONAL = (
    "對对 沒没 無无 個个 這这 張张 雙双 兩两 側侧 邊边 圖图 顯显 檢检 測测 為为 與与 異异 見见 "
    "現现 發发 變变 腫肿 腦脑 頭头 頸颈 臟脏 腎肾 膽胆 腸肠 氣气 積积 結结 節节 塊块 圓圆 點点 "
    "線线 顆颗 葉叶 內内 裡里 裏里 後后 從从 來来 還还 據据 確确 診诊 斷断 類类 別别 惡恶 擴扩 "
    "縮缩 徵征 癥症 壓压 層层 掃扫 電电 機机 計计 聲声 鏡镜 鑒鉴 鑑鉴 創创 傷伤 損损 壞坏 纖纤 "
    "維维 鈣钙 質质 體体 軟软 組组 織织 關关 髕髌 脛胫 橈桡 顱颅 額额 顳颞 頂顶 齒齿 頜颌 顎颚 "
    "鎖锁 腳脚 動动 靜静 脈脉 門门 竇窦 漿浆 陰阴 陽阳 隱隐 藥药 療疗 術术 嗎吗 麼么 麽么 幾几 "
    "數数 號号 單单 總总 條条 隻只 處处 種种 痺痹 瘡疮 濕湿 癬癣 銀银 皺皱 膿脓 潰溃 瘍疡 轉转 "
    "縱纵 橫横 狀状 軸轴 權权 強强 攝摄 屬属 於于 並并 當当 應应 該该 說说 認认 請请 問问 題题 "
    "間间 實实 虛虚 寬宽 廣广 長长 徑径 約约 過过 進进 運运 連连 遠远 達达 開开 閉闭 餘余 顏颜 "
    "黃黄 紅红 藍蓝 綠绿 團团 圍围 亞亚 僅仅 兒儿 婦妇 嬰婴 歲岁 嚴严 輕轻 較较 輸输 鬆松 殘残 "
    "淚泪 潤润 滯滞 滲渗 滿满 漸渐 濁浊 燒烧 營营 獨独 環环 癱瘫 癲癫 癇痫 盤盘 礙碍 穩稳 篩筛 "
    "級级 純纯 細细 絞绞 經经 緊紧 緣缘 縫缝 繼继 續续 義义 聯联 脫脱 膚肤 膠胶 臨临 舉举 舊旧 "
    "莖茎 蓋盖 蟲虫 蝕蚀 補补 複复 復复 觀观 觸触 評评 誤误 錯错 證证 糾纠 貧贫 貫贯 賁贲 贅赘 "
    "蹠跖 軀躯 遲迟 遺遗 鄰邻 醫医 鈍钝 銳锐 鋇钡 鏈链 隨随 險险 雜杂 離离 難难 韌韧 響响 風风 "
    "驗验 鱗鳞 黴霉 齡龄 〇零"
)
FOLDED = UNACCENTED | {ord(pair[0]): pair[1] for pair in TRADITIONAL.split()}

# By language, as it is typed and as it is read: parts of words, then short forms, which a full stop
# may close.
PARTS: dict[Language, str] = {
    "en": "haem/hem oedema/edema oesoph/esoph aemi/emi caec/cec foet/fet paed/ped rrhoea/rrhea "
    "tumour/tumor colour/color centre/center fibre/fiber grey/gray",
    "es": "izquierda/izquierdo derecha/derecho",
    "zh": "",
}
SHORT_FORMS: dict[Language, str] = {
    "en": "lt/left rt/right w/o/without",
    "es": "izq/izquierdo izqdo/izquierdo izqda/izquierdo izdo/izquierdo izda/izquierdo "
    "der/derecho dcho/derecho dcha/derecho",
    "zh": "",
}
READ = {
    language: dict(
        pair.rsplit("/", 1) for pair in (PARTS[language] + " " + SHORT_FORMS[language]).split()
    )
    for language in PARTS
}


def _typed(language: Language) -> re.Pattern[str]:
    """Each begins with a letter, and not with what stands before it: so it is soon found."""
    parts, short = (
        [pair.rpartition("/")[0] for pair in table[language].split()]
        for table in (PARTS, SHORT_FORMS)
    )
    whole = [rf"{form}(?<![\w&]{form})\b\.?" for form in short]  # "&lt;" is no side
    return re.compile("|".join([*parts, *whole]) or r"(?!)")


# What lies between two vertebrae; of T1/T2 nobody knows whether it is such, or two weightings.
LEVEL = re.compile(
    r"(?<![a-z\d])(?:([cl])([1-7])([/-])\1?([2-8])|(c7[/-]t1)|(t12[/-]l1)|(l5[/-]s1))(?![a-z\d])"
)
TYPED = {language: _typed(language) for language in PARTS}


def spelled_one_way(text: str, language: Language) -> str:
    """A text in lower case and folded; characters are FOLDED before, one for one."""
    text = TYPED[language].sub(lambda found: READ[language][found[0].rstrip(".")], text)
    return LEVEL.sub(_level, text) if "/" in text or "-" in text else text


def _level(found: re.Match[str]) -> str:
    letter, upper, mark, lower = found.groups()[:4]
    if letter is None:
        return found[0].replace("/", "-")
    one = mark == "-" or int(lower) == int(upper) + 1
    return f"{letter}{upper}-{lower}" if one else found[0]
