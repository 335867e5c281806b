N="nuat"
ln -sfn $NUAT_DATA/photos photos
D="folder:photos(size=64, classes=('n01440764','n02102040','n02979186','n03000684','n03028079'))"
M="resnet18-nuat(width=8)"
t() { echo "== nuat train $* --data \"$D\" --model '$M'"; $N train "$@" --data "$D" --model "$M" 2>&1 | grep --line-buffered -v "images_per_s"; }
e() { echo "== nuat evaluate $* --attack pgd-20"; $N evaluate "$@" --data "$D" --attack pgd-20 2>&1 | grep -v attacking; }
t nuat-wa --epochs 13 --eps 2/255 --out scratch
t nuat-wa --epochs 40 --eps 2/255 --set ema_decay=0.9 --out averaged
t normal --epochs 30 --eps 2/255 --out normal
t nuat-wa --epochs 13 --eps 2/255 --init normal --set ema_decay=0.75 --set 'lr=triangle(0.0, 0.02, up=2, down=11)' --out finetuned
for r in scratch averaged normal finetuned; do e $r; done
echo END
