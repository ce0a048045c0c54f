# Copy what is committed of a report: sh commit_report.sh REPORT FOLDER. FOLDER/README.md is kept.
set -e
mkdir -p "$2/figures"
rm -f "$2"/figures/*.png "$2"/tables*.md "$2"/*.csv
cp "$1"/*.csv "$1"/*.md "$1"/paper.tex "$2"/
cp "$1"/figures/*.png "$2"/figures/
