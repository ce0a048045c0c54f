# Copy what is committed of a report: sh commit_report.sh REPORT FOLDER. FOLDER/README.md is kept.
set -e
mkdir -p "$2/figures"
rm -f "$2"/figures/*.png "$2"/tables*.md "$2"/*.csv "$2"/*.csv.gz
cp "$1"/*.csv "$1"/*.md "$1"/paper.tex "$2"/
cp "$1"/figures/*.png "$2"/figures/
# Large ones are compressed, without a date, so that equal content stays equal.
find "$2" -name "*.csv" -size +1000k -exec gzip -9 --no-name {} +
